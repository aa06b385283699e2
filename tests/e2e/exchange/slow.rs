//! Clients that take their time, which is limited: each test takes as long as that limit.

use std::io::Write;
use std::time::{Duration, Instant};

use super::seller::Seller;
use super::wire::{answer, ask, closes, connect, head};

/// The limit is 10 s for the headers and as much for the rest.
const LIMIT: Duration = Duration::from_secs(10);

/// How much later than that is still in time on a machine with other things to do.
const SLACK: Duration = Duration::from_secs(15);

#[test]
fn who_does_not_finish_is_not_waited_for() {
    let seller = Seller::open();
    let began = Instant::now();
    let open = |bytes: &str| {
        let mut stream = connect(seller.address);
        stream.write_all(bytes.as_bytes()).expect("sent");
        stream
    };
    let silent = ["", "GET /v1/off", "GET /v1/offerings HTTP/1.1\r\nHost: a\r\n"].map(open);
    let mut half = open(&format!("{}{{\"offering\":", head("POST", "/v1/orders", 1000)));
    let mut kept = open("GET /v1/offerings HTTP/1.1\r\nHost: agent\r\n\r\n");
    assert_eq!(ask(seller.address, "GET", "/v1/offerings", b"").status, 200);
    let slow = answer(&mut half).expect("an answer");
    assert_eq!(slow.word(), "408 TooSlow");
    assert!(began.elapsed() >= LIMIT, "{:?}", began.elapsed());
    for mut stream in silent {
        assert!(closes(&mut stream, SLACK));
    }
    // Answered and then silent.
    let last = answer(&mut kept).expect("an answer");
    assert_eq!(last.status, 200);
}

/// More connections than are served at once: the others wait, and their turn comes.
#[test]
fn idle_connections_give_way() {
    const MORE: usize = 600;
    let seller = Seller::configured("[exchange]\nconnections_per_address = 512\n");
    let idle: Vec<_> = (0..MORE).map(|_| connect(seller.address)).collect();
    assert_eq!(ask(seller.address, "GET", "/v1/offerings", b"").status, 200);
    let held = std::fs::read_dir(format!("/proc/{}/fd", seller.node.pid())).expect("listed");
    assert!(held.count() < MORE, "descriptors are left for the rest of the host");
    drop(idle);
}
