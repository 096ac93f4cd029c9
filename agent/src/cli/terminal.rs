//! Questions to the person at the terminal. They are asked on `/dev/tty`, so
//! that output and input may be redirected.

use std::{
    fs::File,
    io::{self, Read, Write},
};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::failure::Failure;

/// Longest answer that is taken, in bytes.
const ANSWER: usize = 1024;

/// The terminal of this command.
pub struct Terminal(File);

impl Terminal {
    /// None where a script runs the command.
    pub fn open() -> Option<Self> {
        let tty = File::options().read(true).write(true).open("/dev/tty");
        tty.ok().map(Self)
    }

    /// Asks for a line.
    pub fn ask(&mut self, question: &str) -> Result<String, Failure> {
        self.say(question)?;
        read_line(&mut self.0, ANSWER, |_| None)
    }

    /// Asks a question that is answered `y` or else not.
    pub fn confirm(&mut self, question: &str) -> Result<bool, Failure> {
        let answer = self.ask(&format!("{question} [y/N] "))?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    /// Asks for a line that isn't shown while it is typed.
    pub fn secret(&mut self, question: &str) -> Result<String, Failure> {
        self.long_secret(question, ANSWER)
    }

    /// As [`Terminal::secret`], of up to `most` bytes.
    pub fn long_secret(&mut self, question: &str, most: usize) -> Result<String, Failure> {
        let quiet = Quiet::on(&self.0).map_err(unusable)?;
        self.say(question)?;
        // Without the terminal's own handling a key's byte comes as it is.
        let line = read_line(&mut self.0, most, key);
        drop(quiet);
        self.say("\n")?;
        line
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        let written = self.0.write_all(text.as_bytes());
        written.and_then(|()| self.0.flush()).map_err(unusable)
    }
}

enum Key {
    Interrupt,
    Clear,
    Back,
    End,
}

fn key(byte: u8) -> Option<Key> {
    match byte {
        0x03 => Some(Key::Interrupt),
        0x15 => Some(Key::Clear),
        0x08 | 0x7f => Some(Key::Back),
        b'\r' => Some(Key::End),
        _ => None,
    }
}

fn read_line(
    input: &mut impl Read,
    most: usize,
    key: impl Fn(u8) -> Option<Key>,
) -> Result<String, Failure> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < most {
        if input.read(&mut byte).map_err(unusable)? == 0 {
            break;
        }
        match key(byte[0]) {
            Some(Key::Interrupt) => {
                return Err(Failure::failed("interrupted; nothing was changed"));
            }
            Some(Key::Clear) => line.clear(),
            Some(Key::Back) => {
                line.pop();
            }
            Some(Key::End) => break,
            None if byte[0] == b'\n' => break,
            None => line.push(byte[0]),
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn unusable(error: impl Into<io::Error>) -> Failure {
    Failure::failed(format!("the terminal can't be used: {}", error.into()))
}

/// Echo, line editing and signals are off while this lives.
struct Quiet {
    tty: File,
    before: Termios,
}

impl Quiet {
    fn on(tty: &File) -> io::Result<Self> {
        let tty = tty.try_clone()?;
        let before = tcgetattr(&tty)?;
        let mut quiet = before.clone();
        quiet
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        tcsetattr(&tty, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // At worst the person types `reset`.
        let _ = tcsetattr(&self.tty, SetArg::TCSAFLUSH, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_where_it_ends_and_keys_edit_it() {
        let read = |bytes: &[u8]| read_line(&mut &bytes[..], ANSWER, key);
        assert_eq!(read(b"abc\rd").as_deref(), Ok("abc"));
        assert_eq!(read(b"wrong\x15abd\x7fc\n").as_deref(), Ok("abc"));
        assert_eq!(read(b"abc").as_deref(), Ok("abc"));
        assert!(read(b"ab\x03c\n").is_err());
        let endless = vec![b'x'; 10 * ANSWER];
        assert_eq!(read(&endless).unwrap().len(), ANSWER);
    }
}
