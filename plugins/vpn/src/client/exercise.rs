//! For tests: sends datagrams into a channel's tunnel, as a user's programs would.
//!
//! They go to an address that is nobody's, so this works also where both ends are on one machine,
//! whose kernel would not take what comes back to itself. What OpenVPN has read is what counts.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

/// Of the network for benchmarks (RFC 2544), and the port of what is thrown away.
const NOBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 9);

/// The most bytes in a datagram, and what IP and UDP add to it.
const MOST: u64 = 1000;
const HEADERS: u64 = 28;

/// What OpenVPN adds to each packet and counts as well.
const WRAPPING: u64 = 24;

/// Datagrams on their way at once: fewer than any queue holds.
const AT_ONCE: u64 = 32;

/// How long it may take until OpenVPN has read them.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);

/// Why nothing was carried.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExerciseError {
    #[error("the channel has no tunnel that is up")]
    Down,
    #[error("a socket on {device}")]
    Socket {
        device: String,
        #[source]
        source: io::Error,
    },
    #[error("sending into the tunnel")]
    Send(#[source] io::Error),
    #[error("the counters of the tunnel's device")]
    Counters(#[source] io::Error),
    #[error("openvpn did not take it within {PATIENCE:?}")]
    Late,
}

/// Packets and bytes that OpenVPN has read from its device.
#[derive(Debug, Clone, Copy)]
struct Read {
    packets: u64,
    bytes: u64,
}

/// Sends about so many bytes; how many OpenVPN has counted for them.
pub(super) async fn carry(
    device: &str,
    address: Ipv4Addr,
    amount: u64,
) -> Result<u64, ExerciseError> {
    let socket = |source| ExerciseError::Socket { device: device.to_owned(), source };
    let from = UdpSocket::bind((address, 0)).await.map_err(socket)?;
    from.bind_device(Some(device.as_bytes())).map_err(socket)?;
    let counters = Path::new("/sys/class/net").join(device).join("statistics");
    let begun = read(&counters)?;
    let carried = |now: Read| now.bytes - begun.bytes + (now.packets - begun.packets) * WRAPPING;
    loop {
        let before = read(&counters)?;
        let Some(missing) = amount.checked_sub(carried(before)).filter(|missing| *missing > 0)
        else {
            return Ok(carried(before));
        };
        let size = missing.saturating_sub(HEADERS + WRAPPING).clamp(1, MOST);
        let count = missing.div_ceil(size + HEADERS + WRAPPING).min(AT_ONCE);
        let datagram = vec![b'x'; usize::try_from(size).unwrap_or_default()];
        for _ in 0..count {
            from.send_to(&datagram, NOBODY).await.map_err(ExerciseError::Send)?;
        }
        let until = Instant::now() + PATIENCE;
        while read(&counters)?.packets < before.packets + count {
            if Instant::now() > until {
                return Err(ExerciseError::Late);
            }
            sleep(POLL).await;
        }
    }
}

fn read(counters: &Path) -> Result<Read, ExerciseError> {
    let number = |name: &str| {
        let text = std::fs::read_to_string(PathBuf::from(counters).join(name))?;
        text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    };
    let both = || Ok(Read { packets: number("tx_packets")?, bytes: number("tx_bytes")? });
    both().map_err(ExerciseError::Counters)
}
