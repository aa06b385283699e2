//! How a client says at its agent who it is, on a stream: a line of text, and a line in answer.
//!
//! `<client key> <password>` is answered with `ok` or with `denied <reason>`. Everything is read byte by
//! byte, so that what follows on the stream stays there.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Core, Error};
use crate::message::{AccessMessage, ClientKey};

/// The longest line, in bytes.
const MAX_LINE: usize = 512;

/// Why there is no login. What was sent is in none of it, since it may be a password.
#[derive(Debug, thiserror::Error)]
enum LoginError {
    #[error("the login could not be read or answered")]
    Io(#[from] io::Error),
    #[error("the connection ended before a login, or said something else")]
    NoLogin,
    #[error("the core denies it: {0}")]
    Denied(&'static str),
    #[error("the agent does not let the client in: it answered {0:?}")]
    Refused(String),
}

/// Agent: reads a login and asks the core about it. A denial is answered.
pub(super) async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    core: &Core,
) -> Result<ClientKey, Error> {
    let line = read_line(stream).await.map_err(LoginError::Io)?.ok_or(LoginError::NoLogin)?;
    let (channel, denied) = match parse(&line) {
        None => (None, "bad login line"),
        // The stable text only: details are not for strangers.
        Some((channel, password)) => match core.auth_client(channel, password).await {
            Ok(()) => return Ok(channel),
            Err(error) => (Some(channel), error.name.text()),
        },
    };
    write_line(stream, &format!("denied {denied}")).await.map_err(LoginError::Io)?;
    tracing::debug!(?channel, denied, "a login was denied");
    Err(LoginError::Denied(denied).into())
}

/// Agent: lets the client in.
pub(super) async fn accept<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    write_line(stream, "ok").await
}

/// Client: logs in.
pub(super) async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    access: &AccessMessage,
) -> Result<(), Error> {
    let login = format!("{} {}", access.username, access.password.0);
    write_line(stream, &login).await.map_err(LoginError::Io)?;
    match read_line(stream).await.map_err(LoginError::Io)? {
        Some(answer) if answer == "ok" => Ok(()),
        answer => {
            let (answer, password) = (answer.unwrap_or_default(), &access.password.0);
            // An agent may say it back, and an error is logged.
            let tells = !password.is_empty() && answer.contains(password.as_str());
            let answer = if tells { "(the password)".to_owned() } else { answer };
            Err(LoginError::Refused(answer).into())
        }
    }
}

/// The client key and the password of a login.
fn parse(line: &str) -> Option<(ClientKey, &str)> {
    let (channel, password) = line.split_once(' ')?;
    let is_word = !password.is_empty() && !password.contains(char::is_whitespace);
    Some((channel.parse().ok()?, password)).filter(|_| is_word)
}

/// A line of text without its end; `None` if it is too long, is no text, or was not finished.
async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    while line.len() < MAX_LINE {
        match stream.read_u8().await {
            Ok(b'\n') => {
                let text = String::from_utf8(line).ok();
                return Ok(text.map(|text| text.trim_end_matches('\r').to_owned()));
            }
            Ok(byte) => line.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

async fn write_line(stream: &mut (impl AsyncWrite + Unpin), line: &str) -> io::Result<()> {
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "6f1c1f0e-3b5c-4c5e-8f7a-0c1d2e3f4a5b";

    #[test]
    fn logins_have_a_key_and_one_word() {
        for (line, password) in [
            ("KEY secret", Some("secret")),
            ("KEY -_=", Some("-_=")),
            ("KEY", None),
            ("KEY ", None),
            ("KEY  secret", None),
            ("KEY secret more", None),
            ("KEY secret\r", None),
            (" KEY secret", None),
            ("nobody secret", None),
            ("", None),
        ] {
            let line = line.replace("KEY", KEY);
            let expected = password.map(|password| (KEY.parse().expect("a UUID"), password));
            assert_eq!(parse(&line), expected, "{line:?}");
        }
    }

    #[tokio::test]
    async fn lines_are_bounded_and_leave_what_follows() {
        let long = [b'x'; 600];
        for (bytes, line, left) in [
            (&b"one\ntwo\n"[..], Some("one"), 4),
            (b"one\r\n", Some("one"), 0),
            (b"unfinished", None, 0),
            (b"\xff\n", None, 0),
            (b"", None, 0),
            (&long, None, 600 - MAX_LINE),
        ] {
            let mut reader = bytes;
            let read = read_line(&mut reader).await.expect("read");
            assert_eq!((read.as_deref(), reader.len()), (line, left));
        }
    }
}
