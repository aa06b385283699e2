//! An agent with public addresses of its own, in a network namespace of the test's own.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use tokio::net::TcpListener;

use super::agent::{Shop, settings};
use super::wire::{connect_to, connect_to_name};
use crate::settings::Settings;

/// The code of "not allowed by the ruleset".
const NOT_ALLOWED: u8 = 2;

#[test]
fn all_addresses_of_the_agent_get_one_answer_in_a_namespace() {
    // The namespace is the thread's alone, and ends with it.
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        for command in [
            "link set lo up",
            "link add lan0 type veth peer name cable",
            "link set cable up",
            "link set lan0 up",
            "address add 9.9.9.4/24 dev lan0",
            "address add 9.9.9.5/24 dev lan0",
            "address add 9.9.8.1/32 dev lan0",
            "route add local 9.9.7.0/24 dev lo",
            "address add 2a00:1::1/64 dev lan0 nodad",
            "address add 2a00:1::5/64 dev lan0 nodad",
            "route add default dev lan0",
        ] {
            ip(command);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(ask_for_all_addresses());
    })
    .join()
    .expect("no panic");
}

async fn ask_for_all_addresses() {
    let listener = TcpListener::bind("[::]:0").await.expect("a port");
    let open = listener.local_addr().expect("an address").port();
    let connect = Duration::from_millis(300);
    let shop = Shop::open(Settings { allow_private: false, connect, ..settings() }).await;
    let closed = if open == 9 { 10 } else { 9 };
    for port in [open, closed] {
        for ip in [
            "9.9.9.4",
            "9.9.9.5",
            "9.9.8.1",
            // No interface has it, but the machine answers for it.
            "9.9.7.7",
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "[::]",
            "[::1]",
            "[::ffff:9.9.9.5]",
            "[::ffff:0.0.0.0]",
            "[64:ff9b::909:905]",
            "[2002:909:905::1]",
            "[2a00:1::1]",
            "[2a00:1::5]",
            // A neighbor, whether there is one or not.
            "[2a00:1::7]",
        ] {
            let to: SocketAddr = format!("{ip}:{port}").parse().expect("an address");
            let code = shop.ask(&connect_to(to)).await.expect_err("refused");
            assert_eq!(code, NOT_ALLOWED, "{to}");
        }
        for name in ["9.9.9.5", "2a00:1::5", "localhost"] {
            let code = shop.ask(&connect_to_name(name, port)).await.expect_err("refused");
            assert_eq!(code, NOT_ALLOWED, "{name} {port}");
        }
        // Not the agent's, as long as it is not.
        let to: SocketAddr = SocketAddr::from(([9, 9, 9, 6], port));
        assert_ne!(shop.ask(&connect_to(to)).await.expect_err("nobody there"), NOT_ALLOWED);
    }
    ip("address add 9.9.9.6/24 dev lan0");
    for port in [open, closed] {
        let to: SocketAddr = SocketAddr::from(([9, 9, 9, 6], port));
        let code = shop.ask(&connect_to(to)).await.expect_err("refused");
        assert_eq!(code, NOT_ALLOWED, "a new address: {to}");
    }
    let came = listener.into_std().expect("a listener").accept();
    let nothing = came.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert!(nothing, "something has arrived: {came:?}");
}

/// The program runs in the namespace of the thread that starts it.
fn ip(command: &str) {
    let output = Command::new("ip").args(command.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {command}: {output:?}");
}
