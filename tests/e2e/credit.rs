//! Credit: what a module serves while the host cannot save its reports.

mod proxy;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use privatix_core::ProductView;
use privatix_domain::present::Line;
use privatix_plugin_api::message::{ClientKey, Status};

use crate::support::database::Database;
use crate::support::{Package, Pair, wait_for};

const CREDIT: u64 = 256 * 1024;
/// What is on its way inside the module.
const BUFFER: u64 = 256 * 1024;
/// Echo counts both ways.
const WAYS: u64 = 2;

/// A client of the agent's echo, in place of the client's module.
struct Caller(TcpStream);

impl Caller {
    fn of(pair: &mut Pair, channel: ClientKey) -> Self {
        let products: Vec<ProductView> = pair.agent.get("/v1/products").expect("listed");
        let address = products[0].config["address"].as_str().expect("an address").to_owned();
        let path = format!("/v1/channels/{channel}/access?reveal=true");
        let lines: Vec<Line> = pair.client.get(&path).expect("the access");
        let password = lines.into_iter().find(|line| line.label == "Password");
        let password = password.expect("a password").value;
        // Its own module would log in again and end this connection.
        pair.client.stop();
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.write_all(format!("{channel} {password}\n").as_bytes()).expect("written");
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"ok\n");
        Self(stream)
    }

    /// Has bytes echoed one piece after the other; how many came back until nothing did for a while.
    fn echo(&mut self, most: u64) -> u64 {
        self.0.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
        let (piece, mut back) = ([7; 4096], 0);
        while back < most {
            self.0.write_all(&piece).expect("written");
            let mut left = piece.len();
            while left > 0 {
                match self.0.read(&mut [0; 4096][..left]) {
                    Ok(0) => panic!("cut after {back}"),
                    Ok(read) => left -= read,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        return back + (piece.len() - left) as u64;
                    }
                    Err(error) => panic!("{error} after {back}"),
                }
            }
            back += piece.len() as u64;
        }
        back
    }
}

fn serving(settings: &str) -> (Pair, ClientKey) {
    let package = Package::echo();
    let agent = format!(
        "[agent]\norders = \"open\"\n[channels]\nmax_unreported = {CREDIT}\n{settings}\n\
         [modules.echo]\nreport_ms = 20\n"
    );
    let pair = Pair::configured(&package, &agent, "");
    let channel = pair.order(&pair.offer(&package));
    for node in [&pair.client, &pair.agent] {
        node.wait_channel(channel, Status::Active);
    }
    (pair, channel)
}

#[test]
fn a_database_that_is_locked_costs_one_credit_and_then_service_goes_on() {
    let (mut pair, channel) = serving("");
    let mut caller = Caller::of(&mut pair, channel);
    assert_eq!(caller.echo(1 << 20), 1 << 20, "nothing holds it up");
    let database = Database::of(&pair.agent);
    let before = wait_for("usage to be saved", || {
        let usage = pair.agent.channel(channel).usage;
        (usage >= WAYS << 20).then_some(usage)
    });
    let lock = database.lock();
    let unsaved = caller.echo(1 << 30);
    assert_eq!(pair.agent.channel(channel).usage, before, "nothing is saved");
    assert!(WAYS * unsaved <= CREDIT + BUFFER, "{unsaved} bytes were served and not saved");
    database.unlock(lock);
    // What was stuck comes, and the session is the same.
    let mut left = vec![0; 4096 - usize::try_from(unsaved % 4096).expect("small")];
    caller.0.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    caller.0.read_exact(&mut left).expect("the rest");
    assert_eq!(caller.echo(1 << 20), 1 << 20, "service goes on");
    let served = (2 << 20) + unsaved + left.len() as u64;
    wait_for("all of it to be saved", || {
        (pair.agent.channel(channel).usage >= WAYS * served).then_some(())
    });
}

#[test]
fn a_stop_that_leaves_usage_unsaved_says_so_and_fails() {
    let (mut pair, channel) = serving("[module_timeouts]\nshutdown = 1\n");
    let mut caller = Caller::of(&mut pair, channel);
    assert_eq!(caller.echo(1 << 16), 1 << 16);
    let database = Database::of(&pair.agent);
    let lock = database.lock();
    assert!(caller.echo(1 << 30) > 0, "some of it is granted already");
    let status = pair.agent.stop();
    database.unlock(lock);
    assert_eq!(status.code(), Some(1), "{status}");
    let log = pair.agent.log();
    let channel = channel.to_string();
    let said =
        log.lines().any(|line| line.contains("usage was not saved") && line.contains(&channel));
    assert!(said, "{log}");
}
