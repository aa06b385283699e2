//! One tunnel without SOCKS5 around it.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::book::{PATIENCE, TestCore};
use crate::session::Sessions;
use crate::tunnel::{self, COUNT_AFTER, LOOK, Leg, Manner};

/// Both ends of a connection.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let to = listener.local_addr().expect("an address");
    let (near, far) = tokio::join!(TcpStream::connect(to), listener.accept());
    (near.expect("connected"), far.expect("connected").0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fast_tunnel_is_counted_exactly_and_not_for_each_buffer() {
    const SIZE: usize = 64 << 20;
    for counts_unread in [false, true] {
        let core = TestCore::new();
        let channel = core.channel();
        core.change(channel, |channel| channel.paid = Some(4 * SIZE as u64));
        let sessions = Sessions::new(core.core(), Duration::from_secs(1), 1, None);
        let member = sessions.join(channel, None).await.expect("a member");
        let (mut near, line) = connection().await;
        let (end, mut far) = connection().await;
        // The agent's tunnel gets the bytes from its end, the client's from the line.
        let (from, into) =
            if counts_unread { (&mut near, &mut far) } else { (&mut far, &mut near) };
        let manner = Manner { idle: PATIENCE, counts_unread };
        let (line, end) = (Leg::new(line), Leg::new(end));
        let (water, mut got) = (vec![7; SIZE], Vec::new());
        let begun = Instant::now();
        let others = async {
            let send = async {
                from.write_all(&water).await.expect("sent");
                from.shutdown().await.expect("half closed");
            };
            let receive = async {
                into.read_to_end(&mut got).await.expect("received");
                into.shutdown().await.expect("half closed");
            };
            tokio::join!(send, receive);
        };
        let (outcome, ()) = tokio::join!(tunnel::run(line, end, &member, manner), others);
        outcome.expect("carried");
        // Beside those for bytes there are some at the end, and some while bytes wait.
        let looks = begun.elapsed().as_millis() / LOOK.as_millis();
        let most = SIZE as u128 / u128::from(COUNT_AFTER) + 2 * looks + 20;
        let counts = u128::from(member.counts.load(Relaxed));
        assert!(counts <= most, "{counts} of {most}");
        assert_eq!(got.len(), SIZE);
        drop(member);
        sessions.end_all().await;
        assert_eq!(core.used(channel), SIZE as u64);
    }
}
