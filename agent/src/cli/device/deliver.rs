//! Where a configuration goes: a QR code, a picture, a file, or the screen. A
//! private key in it stands nowhere else, so that whatever goes wrong once it is
//! made, the text is still shown.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::qr::Code;
use crate::cli::{
    failure::Failure,
    output::{self, note},
    show::{Look, Stream},
};

/// Where there is no terminal to say how wide it is.
const COLUMNS: u16 = 80;

/// `--qr`, `--png` and `--out`.
#[derive(Debug, Clone, clap::Args)]
pub struct Delivery {
    /// Show a QR code for the WireGuard app.
    #[arg(long, conflicts_with_all = ["json", "public_key"])]
    qr: bool,
    /// Write the QR code as a picture.
    ///
    /// For a second gateway its name is added to the file's. Nobody else can read
    /// the file.
    #[arg(long, value_name = "FILE", conflicts_with = "public_key")]
    png: Option<PathBuf>,
    /// Write the configuration to a file, as wg-quick reads it.
    ///
    /// For a second gateway its name is added to the file's. Nobody else can read
    /// the file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A configuration for one gateway.
pub struct Configuration<'a> {
    pub gateway: &'a str,
    pub text: String,
}

/// Where configurations go, with files that are there and empty.
pub struct Prepared {
    qr: bool,
    png: Option<PathBuf>,
    out: Option<PathBuf>,
    /// Removed where nothing was written.
    made: Vec<PathBuf>,
}

impl Delivery {
    /// Makes the files, so that what can't be written is known before anything is
    /// changed.
    ///
    /// # Errors
    /// Which file can't be made.
    pub fn prepare(self) -> Result<Prepared, Failure> {
        let mut prepared = Prepared {
            qr: self.qr,
            png: self.png,
            out: self.out,
            made: Vec::new(),
        };
        let files: Vec<PathBuf> = prepared.png.iter().chain(&prepared.out).cloned().collect();
        for file in files {
            make(&file).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Failure::usage(format!(
                    "{} is there already; give another name, or remove it",
                    file.display()
                )),
                _ => Failure::failed(format!("{} can't be made: {error}", file.display())),
            })?;
            prepared.made.push(file);
        }
        Ok(prepared)
    }
}

impl Prepared {
    /// Hands out the configurations; on standard output where nothing else is
    /// asked for, unless `quiet`. Returns the files that were written.
    ///
    /// # Errors
    /// When standard output can't be written.
    pub fn deliver(
        mut self,
        configurations: &[Configuration<'_>],
        quiet: bool,
    ) -> Result<Vec<PathBuf>, Failure> {
        let mut written = Vec::new();
        let to_screen = !self.qr && self.png.is_none() && self.out.is_none() && !quiet;
        for (number, configuration) in configurations.iter().enumerate() {
            let mut shown = to_screen;
            if let Some(file) = self.out.clone() {
                let bytes = configuration.text.as_bytes();
                shown |= !self.write(&file, number, configuration, bytes, &mut written);
            }
            let code = if self.qr || self.png.is_some() {
                Code::of(&configuration.text)
            } else {
                None
            };
            if let Some(file) = self.png.clone() {
                shown |= match &code {
                    Some(code) => {
                        !self.write(&file, number, configuration, &code.png(), &mut written)
                    }
                    None => true,
                };
            }
            if self.qr {
                shown |= !show(code.as_ref(), configuration)?;
            }
            if shown {
                if configurations.len() > 1 {
                    output::raw(&format!("# by way of {}\n", configuration.gateway))?;
                }
                output::raw(&configuration.text)?;
            }
        }
        Ok(written)
    }

    /// Whether it is written.
    fn write(
        &mut self,
        file: &Path,
        number: usize,
        configuration: &Configuration<'_>,
        bytes: &[u8],
        written: &mut Vec<PathBuf>,
    ) -> bool {
        let file = if number == 0 {
            file.to_owned()
        } else {
            beside(file, configuration.gateway)
        };
        let done = if number == 0 {
            OpenOptions::new().write(true).open(&file)
        } else {
            make(&file)
        };
        let done = done.and_then(|mut open| open.write_all(bytes).and_then(|()| open.sync_all()));
        match done {
            Ok(()) => {
                self.made.retain(|made| *made != file);
                written.push(file);
                true
            }
            Err(error) => {
                note(&format!(
                    "warning: {} can't be written: {error}",
                    file.display()
                ));
                false
            }
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        for file in &self.made {
            let _ = fs::remove_file(file);
        }
    }
}

/// Whether the code fits the terminal, and is shown.
fn show(code: Option<&Code>, configuration: &Configuration<'_>) -> Result<bool, Failure> {
    let columns = Look::of(Stream::Out, false).width.unwrap_or(COLUMNS);
    let Some(lines) = code.and_then(|code| code.lines(columns.into())) else {
        note(&format!(
            "warning: the QR code doesn't fit {columns} columns; `--png FILE` makes a picture of it"
        ));
        return Ok(false);
    };
    output::raw(&lines)?;
    output::raw(&format!("by way of {}\n", configuration.gateway))?;
    Ok(true)
}

fn make(file: &Path) -> io::Result<fs::File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
}

/// `phone.conf` for another gateway: `phone-oak.conf`.
fn beside(file: &Path, gateway: &str) -> PathBuf {
    let text =
        |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let stem = text(file.file_stem()).unwrap_or_default();
    let name = match text(file.extension()) {
        Some(extension) => format!("{stem}-{gateway}.{extension}"),
        None => format!("{stem}-{gateway}"),
    };
    file.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn delivery(qr: bool, png: Option<PathBuf>, out: Option<PathBuf>) -> Delivery {
        Delivery { qr, png, out }
    }

    fn configurations() -> [Configuration<'static>; 2] {
        ["oak", "elm"].map(|gateway| Configuration {
            gateway,
            text: format!("[Interface]\n# {gateway}\n"),
        })
    }

    #[test]
    fn files_are_for_their_owner_only_and_each_gateway_has_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (out, png) = (
            folder.path().join("phone.conf"),
            folder.path().join("phone.png"),
        );
        let prepared = delivery(false, Some(png.clone()), Some(out.clone())).prepare();
        let written = prepared.unwrap().deliver(&configurations(), false).unwrap();
        let named = |name: &str| folder.path().join(name);
        let wanted = [
            &out,
            &png,
            &named("phone-elm.conf"),
            &named("phone-elm.png"),
        ];
        assert_eq!(written.iter().collect::<Vec<_>>(), wanted);
        for file in &written {
            let mode = fs::metadata(file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        assert_eq!(fs::read_to_string(&out).unwrap(), "[Interface]\n# oak\n");
        assert!(fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn a_file_that_is_there_is_left_alone_and_one_without_use_goes_again() {
        let folder = tempfile::tempdir().unwrap();
        let (out, png) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&png, "mine").unwrap();
        let refused = delivery(false, Some(png.clone()), Some(out.clone())).prepare();
        let refused = refused.err().expect("it is refused").to_string();
        assert!(refused.contains("is there already"), "{refused}");
        assert_eq!(fs::read_to_string(&png).unwrap(), "mine");
        drop(delivery(false, None, Some(out.clone())).prepare().unwrap());
        assert!(!out.exists() && png.exists());
        let nowhere = folder.path().join("none/x");
        assert!(delivery(false, None, Some(nowhere)).prepare().is_err());
    }
}
