//! The pipe by which one process of the demo ends with another.

use std::io;

/// Waits until standard input, a pipe, ends: with the process that holds its
/// other end. tokio's own standard input would keep a thread reading, and the
/// program from ending.
pub async fn ends() -> io::Result<()> {
    use std::os::fd::AsFd;
    use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver};
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut pipe = Receiver::from_owned_fd(input)?;
    let mut nothing = [0; 64];
    while pipe.read(&mut nothing).await? > 0 {}
    Ok(())
}
