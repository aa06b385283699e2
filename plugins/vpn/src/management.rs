//! OpenVPN's management protocol, without I/O: lines in, messages out; commands as text.
//!
//! A library was looked at: `openvpn-mgmt-codec` ends its stream at the first byte that is no
//! UTF-8, and a user name may have such bytes, so any client could cut the agent from its server.
//! Here every line is read in some way: what is not known is `Other`, odd bytes are replaced.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

#[cfg(test)]
mod tests;

/// The longest line taken in, and the most variables of one event.
pub(crate) const MAX_LINE: usize = 64 * 1024;

/// The longest command that is sent. OpenVPN's own buffer has 1,024 bytes, and it reads what does
/// not fit as the next command: so an argument of another party could become one.
const MAX_COMMAND: usize = 1000;

/// The longest user name or password: what OpenVPN keeps of either where it is built without PKCS#11.
pub(crate) const MAX_CREDENTIAL: usize = 127;
const MAX_VARIABLES: usize = 1024;

/// What OpenVPN says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The last command was done.
    Success(String),
    /// The last command was not.
    Failure(String),
    /// It waits for `hold release`.
    Hold,
    Client(ClientEvent),
    /// Server: a client got its address in the tunnel.
    Address {
        client: u64,
        address: Ipv4Addr,
    },
    /// Server: what a client has sent and got, since it connected.
    ClientBytes {
        client: u64,
        bytes: Bytes,
    },
    /// Client: what was got and sent, since the process began.
    Bytes(Bytes),
    State {
        name: String,
        detail: String,
        address: Option<Ipv4Addr>,
    },
    /// It wants user name and password.
    NeedPassword(String),
    /// They were refused.
    Refused(String),
    Fatal(String),
    /// Anything else.
    Other(String),
}

/// Bytes in both directions, as the speaker sees them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) incoming: u64,
    pub(crate) outgoing: u64,
}

/// What a server's client has done.
#[derive(PartialEq, Eq)]
pub(crate) struct ClientEvent {
    pub(crate) kind: ClientEventKind,
    pub(crate) client: u64,
    /// The key of a login; 0 where there is none.
    pub(crate) key: u64,
    variables: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientEventKind {
    Connect,
    Reauth,
    Established,
    Disconnect,
    Other,
}

/// Never shows a password.
impl fmt::Debug for ClientEvent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, client, key, variables } = self;
        write!(out, "{kind:?} {client} {key}, {} variables", variables.len())
    }
}

impl ClientEvent {
    /// A variable, if it is there.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// What a leaving client has sent and got.
    pub(crate) fn bytes(&self) -> Option<Bytes> {
        let number = |name| self.get(name)?.parse().ok();
        Some(Bytes { incoming: number("bytes_received")?, outgoing: number("bytes_sent")? })
    }
}

/// What cannot be a conversation with OpenVPN.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ProtocolError {
    #[error(
        "the command `{word}` has {length} bytes or is not one line; OpenVPN takes a line of {MAX_COMMAND} bytes"
    )]
    BadCommand { word: String, length: usize },
    #[error("a line of more than {MAX_LINE} bytes")]
    LongLine,
    #[error("an event with more than {MAX_VARIABLES} variables")]
    TooManyVariables,
}

/// Puts lines together into messages.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// An event whose variables are still coming.
    open: Option<ClientEvent>,
}

impl Parser {
    /// Takes a line without its end; a message, if it is complete by that.
    ///
    /// # Errors
    /// [`ProtocolError`].
    pub(crate) fn line(&mut self, line: &[u8]) -> Result<Option<Message>, ProtocolError> {
        if line.len() > MAX_LINE {
            return Err(ProtocolError::LongLine);
        }
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches('\r');
        if line.is_empty() {
            return Ok(None);
        }
        match line.strip_prefix(">CLIENT:") {
            Some(rest) => self.client(rest),
            None => Ok(Some(plain(line))),
        }
    }

    fn client(&mut self, rest: &str) -> Result<Option<Message>, ProtocolError> {
        if rest == "ENV,END" {
            return Ok(self.open.take().map(Message::Client));
        }
        if let Some(variable) = rest.strip_prefix("ENV,") {
            return self.variable(variable).map(|()| None);
        }
        let mut fields = rest.split(',');
        let kind = fields.next().unwrap_or_default();
        let numbers: Option<Vec<u64>> = fields.clone().map(|field| field.parse().ok()).collect();
        if kind == "ADDRESS" {
            let (client, address) = (fields.next(), fields.next());
            let client = client.and_then(|field| field.parse().ok());
            let address = address.and_then(|field| field.parse().ok());
            return Ok(Some(match (client, address) {
                (Some(client), Some(address)) => Message::Address { client, address },
                _ => other(rest),
            }));
        }
        let kind = match kind {
            "CONNECT" => ClientEventKind::Connect,
            "REAUTH" => ClientEventKind::Reauth,
            "ESTABLISHED" => ClientEventKind::Established,
            "DISCONNECT" => ClientEventKind::Disconnect,
            _ => ClientEventKind::Other,
        };
        let (client, key) = match numbers.as_deref() {
            Some([client]) => (*client, 0),
            Some([client, key]) => (*client, *key),
            _ if kind == ClientEventKind::Other => (0, 0),
            _ => return Ok(Some(other(rest))),
        };
        self.open = Some(ClientEvent { kind, client, key, variables: BTreeMap::new() });
        Ok(None)
    }

    fn variable(&mut self, text: &str) -> Result<(), ProtocolError> {
        // Variables without an event belong to one that could not be read.
        let Some(event) = &mut self.open else { return Ok(()) };
        if event.variables.len() >= MAX_VARIABLES {
            return Err(ProtocolError::TooManyVariables);
        }
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        // The first one stays: what comes later under the same name was not OpenVPN's own.
        event.variables.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        Ok(())
    }
}

/// A message of one line.
fn plain(line: &str) -> Message {
    let (word, rest) = line.split_once(':').unwrap_or((line, ""));
    let known = match word {
        "SUCCESS" => Some(Message::Success(rest.trim_start().to_owned())),
        "ERROR" => Some(Message::Failure(rest.trim_start().to_owned())),
        ">HOLD" => Some(Message::Hold),
        ">FATAL" => Some(Message::Fatal(rest.to_owned())),
        ">BYTECOUNT" => bytes(rest).map(Message::Bytes),
        ">BYTECOUNT_CLI" => client_bytes(rest),
        ">STATE" => state(rest),
        ">PASSWORD" => password(rest),
        _ => None,
    };
    known.unwrap_or_else(|| other(line))
}

fn other(text: &str) -> Message {
    Message::Other(text.to_owned())
}

fn bytes(text: &str) -> Option<Bytes> {
    let (incoming, outgoing) = text.split_once(',')?;
    Some(Bytes { incoming: incoming.parse().ok()?, outgoing: outgoing.parse().ok()? })
}

fn client_bytes(text: &str) -> Option<Message> {
    let (client, rest) = text.split_once(',')?;
    Some(Message::ClientBytes { client: client.parse().ok()?, bytes: bytes(rest)? })
}

fn state(text: &str) -> Option<Message> {
    let mut fields = text.split(',');
    let _time = fields.next()?;
    let name = fields.next()?.to_owned();
    let detail = fields.next().unwrap_or_default().to_owned();
    let address = fields.next().and_then(|field| field.parse().ok());
    Some(Message::State { name, detail, address })
}

fn password(text: &str) -> Option<Message> {
    if let Some(rest) = text.strip_prefix("Need '") {
        let (what, _) = rest.split_once('\'')?;
        return Some(Message::NeedPassword(what.to_owned()));
    }
    text.strip_prefix("Verification Failed: ").map(|rest| Message::Refused(rest.to_owned()))
}

/// What a `load-stats` answer says of the bytes of the whole process.
pub(crate) fn load_stats(answer: &str) -> Option<Bytes> {
    let field = |name: &str| {
        let mut fields = answer.split(',');
        fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    Some(Bytes { incoming: field("bytesin")?, outgoing: field("bytesout")? })
}

/// A command as the line that is sent, with its end.
///
/// # Errors
/// [`ProtocolError::BadCommand`] if OpenVPN would not read it as this one command.
pub(crate) fn command_line(command: &str) -> Result<String, ProtocolError> {
    let is_line = !command.contains(['\n', '\r', '\0']);
    if command.len() < MAX_COMMAND && is_line {
        return Ok(format!("{command}\n"));
    }
    // The arguments may be secrets.
    let word = command.split(char::is_whitespace).next().unwrap_or_default();
    let word = word.chars().take(32).collect();
    Err(ProtocolError::BadCommand { word, length: command.len() })
}

/// Whether a user name or password can be handed to OpenVPN, and come from it, unchanged.
pub(crate) fn is_credential(text: &str) -> bool {
    (1..=MAX_CREDENTIAL).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// A parameter of a command, quoted for OpenVPN's lexer. What would end the line is left out.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars().filter(|c| !matches!(c, '\n' | '\r' | '\0')) {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}
