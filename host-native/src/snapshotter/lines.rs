//! Messages on unix sockets, each a line of JSON.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// The longest line; thousands of layers fit.
const MAX_LINE: u64 = 64 << 20;

/// Reads a message, the only one that comes; `None` when the other side has gone.
///
/// # Errors
/// When the connection breaks, or what comes is no message.
pub async fn read<T: for<'de> Deserialize<'de>>(stream: &mut UnixStream) -> Result<Option<T>> {
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_LINE)).read_until(b'\n', &mut line).await?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) => bail!("a message that ends in the middle"),
    }
}

/// Writes a message.
///
/// # Errors
/// When the connection breaks.
pub async fn write<T: Serialize>(stream: &mut UnixStream, message: &T) -> Result<()> {
    Ok(stream.write_all(&line(message)?).await?)
}

/// A message as it is written.
///
/// # Errors
/// When it is not one that JSON can hold.
pub fn line<T: Serialize>(message: &T) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}
