//! What is delivered beyond what was paid for, where nothing but payments holds a transfer up.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;

use privatix_plugin_api::message::Status;
use serde_json::json;

use super::deal::{Deal, POSTPAID, PREPAID};
use crate::support::gate::Way;
use crate::support::{Package, wait_for, wait_still};

const KIB: u64 = 1024;
/// What may be used until the next payment, in KiB: paid in advance, or borne.
const BOUGHT: u64 = 1000;
/// What may be on its way in buffers.
const BUFFER: u64 = 256 * KIB;
/// All of the transfer.
const WHOLE: u64 = 12 * BOUGHT * KIB;

#[test]
fn transfer_stops_at_what_is_paid_in_advance() {
    delivers_what_is_bought(PREPAID, BOUGHT, Transfer::download);
}

#[test]
fn transfer_stops_at_what_the_agent_bears() {
    delivers_what_is_bought(POSTPAID, 0, Transfer::download);
}

#[test]
fn upload_stops_at_what_is_paid_in_advance() {
    delivers_what_is_bought(PREPAID, BOUGHT, Transfer::upload);
}

fn delivers_what_is_bought(billing: &str, paid: u64, begin: fn(&Deal) -> Transfer) {
    let terms = json!({
        "billingType": billing, "unitName": "KiB", "unitSize": KIB, "unitPrice": 1,
        "billingInterval": BOUGHT / 2, "maxBillingUnitLag": BOUGHT,
    });
    let agent = "[modules.proxy]\nallow_private = true\n";
    let deal = Deal::of(&Package::proxy(), agent, "", &terms, 100 * BOUGHT);
    wait_for("what is due at the start to be paid", || {
        (deal.agent_money().paid == paid).then_some(())
    });
    deal.settled();
    deal.gate.set(Way::Silent);
    let borne = BOUGHT - paid;
    let transfer = begin(&deal);
    wait_for("all that may be used to be used", || {
        (deal.pair.agent.channel(deal.channel).usage >= BOUGHT * KIB - 1).then_some(())
    });
    let delivered = wait_still("the transfer to wait", || transfer.delivered());
    assert!(!transfer.reader.is_finished(), "the transfer was cut after {delivered} bytes");
    assert_eq!(deal.agent_money().paid, paid, "no payment has come");
    assert!(delivered <= BOUGHT * KIB + BUFFER, "{delivered} bytes for {BOUGHT} KiB");
    let asked = deal.gate.asked();

    deal.gate.set(Way::Open);
    for step in 1..=WHOLE / (BOUGHT * KIB) {
        wait_for("the transfer to go on", || {
            // In this order: what is paid meanwhile allows more.
            let delivered = transfer.delivered();
            let money = deal.agent_money();
            assert!(money.cost <= money.paid + borne, "{money:?}");
            let bought = (money.paid + borne) * KIB;
            assert!(delivered <= bought + BUFFER, "{delivered} bytes for {bought}");
            (delivered >= step * BOUGHT * KIB).then_some(())
        });
    }
    assert_eq!(transfer.end(), WHOLE);
    let payments = deal.gate.asked() - asked;
    // Two intervals at a time.
    assert!(payments as u64 >= WHOLE / (2 * BOUGHT * KIB), "{payments} payments for all of it");
    deal.agree(WHOLE);
    deal.settled();
    for node in [&deal.pair.agent, &deal.pair.client] {
        assert_eq!(node.channel(deal.channel).status, Status::Active);
        assert_eq!(node.sessions(deal.channel).len(), 1, "it was never cut");
    }
}

/// A transfer as fast as the channel carries it.
struct Transfer {
    delivered: Arc<AtomicU64>,
    reader: JoinHandle<()>,
}

impl Transfer {
    fn download(deal: &Deal) -> Self {
        let mut stream = deal.connect().expect("connected");
        stream.write_all(&WHOLE.to_be_bytes()).expect("asked");
        let delivered = Arc::default();
        let count = Arc::clone(&delivered);
        Self { reader: std::thread::spawn(move || receive(stream, &count)), delivered }
    }

    fn upload(deal: &Deal) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let SocketAddr::V4(sink) = listener.local_addr().expect("an address") else {
            panic!("IPv4 was asked for")
        };
        let delivered = Arc::default();
        let count = Arc::clone(&delivered);
        let reader = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            receive(stream, &count);
        });
        let mut stream = deal.connect_to(sink).expect("connected");
        // Where it is cut, the sink sees it, too.
        std::thread::spawn(move || io::copy(&mut io::repeat(7).take(WHOLE), &mut stream));
        Self { delivered, reader }
    }

    fn delivered(&self) -> u64 {
        self.delivered.load(SeqCst)
    }

    /// Waits for the end; how much has come in all.
    fn end(self) -> u64 {
        self.reader.join().expect("no panic");
        self.delivered.load(SeqCst)
    }
}

/// Counts what comes, until the end.
fn receive(mut stream: TcpStream, count: &AtomicU64) {
    let mut part = vec![0; 1 << 16];
    while let Ok(read @ 1..) = stream.read(&mut part) {
        count.fetch_add(read as u64, SeqCst);
    }
}
