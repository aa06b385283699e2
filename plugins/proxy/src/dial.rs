//! The client's way to the agent's proxy: connect, log in, ask for a destination.
//!
//! Each connection dials anew, so there is nothing here to repair after a failure. Negotiation,
//! login and the coding of addresses are `fast-socks5`'s. The request is sent here, because the
//! library panics at a reply code it does not know, and the code is the agent's to choose.

use std::io;
use std::time::Duration;

use fast_socks5::client::{Config, Socks5Stream};
use fast_socks5::util::target_addr::{AddrError, TargetAddr, read_address};
use fast_socks5::{AuthenticationMethod, ReplyError, SocksError, consts};
use privatix_plugin_api::message::AccessMessage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::accept::prepare;

/// The longest user name or password of RFC 1929, in bytes.
const MAX_CREDENTIAL: usize = 255;

/// Why there is no connection through the agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the access message has no additional parameter \"address\"")]
    NoAddress,
    #[error("the access message's password has to have 1 to 255 bytes")]
    BadPassword,
    #[error("connecting to the agent's proxy at {address}")]
    Connect {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("the agent's proxy at {address} did not answer within {within:?}")]
    Late { address: String, within: Duration },
    #[error("the agent's proxy denied the login")]
    Denied,
    #[error("logging in at the agent's proxy")]
    Login(#[source] SocksError),
    #[error("asking the agent's proxy for a destination")]
    Ask(#[source] io::Error),
    #[error("reading the agent's answer")]
    Answer(#[source] AddrError),
    #[error("the agent's proxy answered with SOCKS code {0}")]
    Refused(u8),
}

impl DialError {
    /// Whether trying again cannot help before something else has changed.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::NoAddress | Self::BadPassword | Self::Denied)
    }

    /// Whether it says that the agent cannot be used, rather than one destination.
    pub(crate) fn is_the_agents(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }

    /// What the local program is told.
    pub(crate) fn reply(&self) -> ReplyError {
        match self {
            Self::Refused(code) => match *code {
                consts::SOCKS5_REPLY_CONNECTION_NOT_ALLOWED => ReplyError::ConnectionNotAllowed,
                consts::SOCKS5_REPLY_NETWORK_UNREACHABLE => ReplyError::NetworkUnreachable,
                consts::SOCKS5_REPLY_HOST_UNREACHABLE => ReplyError::HostUnreachable,
                consts::SOCKS5_REPLY_CONNECTION_REFUSED => ReplyError::ConnectionRefused,
                consts::SOCKS5_REPLY_TTL_EXPIRED => ReplyError::TtlExpired,
                consts::SOCKS5_REPLY_COMMAND_NOT_SUPPORTED => ReplyError::CommandNotSupported,
                consts::SOCKS5_REPLY_ADDRESS_TYPE_NOT_SUPPORTED => {
                    ReplyError::AddressTypeNotSupported
                }
                _ => ReplyError::GeneralFailure,
            },
            Self::Denied => ReplyError::ConnectionNotAllowed,
            Self::Connect { .. } | Self::Late { .. } => ReplyError::NetworkUnreachable,
            _ => ReplyError::GeneralFailure,
        }
    }
}

/// How long the steps may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) connect: Duration,
    pub(crate) handshake: Duration,
}

impl Patience {
    /// A connection that is logged in.
    pub(crate) async fn log_in(self, access: &AccessMessage) -> Result<TcpStream, DialError> {
        let address = access.additional_params.get("address").ok_or(DialError::NoAddress)?;
        if !(1..=MAX_CREDENTIAL).contains(&access.password.0.len()) {
            return Err(DialError::BadPassword);
        }
        let connecting = timeout(self.connect, TcpStream::connect(address)).await;
        let stream = connecting
            .map_err(|_| late(address, self.connect))?
            .map_err(|source| DialError::Connect { address: address.clone(), source })?;
        prepare(&stream);
        let method = AuthenticationMethod::Password {
            username: access.username.to_string(),
            password: access.password.0.clone(),
        };
        let login = Socks5Stream::use_stream(stream, Some(method), Config::default());
        let outcome = timeout(self.handshake, login).await;
        match outcome.map_err(|_| late(address, self.handshake))? {
            Ok(stream) => Ok(stream.get_socket()),
            Err(SocksError::AuthenticationRejected(_)) => Err(DialError::Denied),
            Err(error) => Err(DialError::Login(error)),
        }
    }

    /// A connection to a destination, which the agent resolves and connects to.
    pub(crate) async fn connect(
        self,
        access: &AccessMessage,
        target: &TargetAddr,
    ) -> Result<TcpStream, DialError> {
        let mut stream = self.log_in(access).await?;
        let request = target.to_be_bytes().map_err(DialError::Answer)?;
        // The agent opens a session and looks for the destination before it answers.
        let within = self.connect + self.handshake;
        match timeout(within, ask(&mut stream, &request)).await {
            Ok(answer) => answer.map(|()| stream),
            Err(_) => Err(DialError::Refused(consts::SOCKS5_REPLY_TTL_EXPIRED)),
        }
    }
}

async fn ask(stream: &mut TcpStream, target: &[u8]) -> Result<(), DialError> {
    let head = [consts::SOCKS5_VERSION, consts::SOCKS5_CMD_TCP_CONNECT, 0];
    stream.write_all(&[&head, target].concat()).await.map_err(DialError::Ask)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.map_err(DialError::Ask)?;
    let [_version, code, _reserved, kind] = answer;
    if code != consts::SOCKS5_REPLY_SUCCEEDED {
        return Err(DialError::Refused(code));
    }
    // The agent's end of the connection: read, since the data follows it, and of no use.
    read_address(stream, kind).await.map(drop).map_err(DialError::Answer)
}

fn late(address: &str, within: Duration) -> DialError {
    DialError::Late { address: address.to_owned(), within }
}
