//! An adapter that behaves as existing ones do: a new connection for each call, one that is told of
//! commands, and no errors known but one. A start that comes while it cleans up after a stop is lost.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use privatix_plugin_api::message::ClientKey;
use serde_json::{Value, json};
use uuid::Uuid;

use super::program::{Refusal, Station, Wire};
use super::wait_for;

const NON_ACTIVE: &str = "non-active channel (1236228)";

/// How often usage is reported.
const REPORT: Duration = Duration::from_millis(50);

/// How long it cleans up after a stop.
const CLEANING: Duration = Duration::from_millis(1500);

/// A running adapter, ended when it is dropped.
pub(crate) struct Existing {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    end: AtomicBool,
    leave: AtomicBool,
    /// What its tunnel has carried since the session was opened.
    carried: AtomicU64,
    /// Whether its tunnel is up.
    up: AtomicBool,
    /// Starts that were lost.
    lost: AtomicU64,
    /// Stops of each connection that it was told.
    stops: AtomicU64,
    /// What it has ended of.
    fatal: Mutex<Option<String>>,
}

struct Life {
    address: SocketAddr,
    product: Uuid,
    token: String,
    channel: ClientKey,
    shared: Arc<Shared>,
    cleaning: Option<Instant>,
    stopped: HashSet<ClientKey>,
}

/// It ends here.
struct Fatal(String);

impl Existing {
    pub(crate) fn of(station: &Station, channel: ClientKey) -> Self {
        let shared = Arc::new(Shared::default());
        let life = Life {
            address: station.address,
            product: station.module.product(),
            token: station.token.clone(),
            channel,
            shared: Arc::clone(&shared),
            cleaning: None,
            stopped: HashSet::new(),
        };
        let thread = std::thread::spawn(move || life.run());
        Self { shared, thread: Some(thread) }
    }

    /// Fails if it met an error that it does not know, or was told a stop twice.
    pub(crate) fn is_well(&self) {
        let fatal = self.shared.fatal.lock().expect("not poisoned").clone();
        assert_eq!(fatal, None);
    }

    pub(crate) fn is_up(&self) -> bool {
        self.shared.up.load(Ordering::SeqCst)
    }

    pub(crate) fn wait_up(&self, up: bool) {
        wait_for("the adapter's tunnel", || {
            self.is_well();
            (self.is_up() == up).then_some(())
        });
    }

    /// Starts that came while it was cleaning up.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::SeqCst)
    }

    pub(crate) fn stops(&self) -> u64 {
        self.shared.stops.load(Ordering::SeqCst)
    }

    /// Has it end its session by itself.
    pub(crate) fn leave(&self) {
        self.shared.leave.store(true, Ordering::SeqCst);
    }
}

impl Drop for Existing {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Life {
    fn run(mut self) {
        while !self.is_over() {
            match self.converse() {
                Ok(()) => {}
                Err(Fatal(why)) => {
                    *self.shared.fatal.lock().expect("not poisoned") = Some(why);
                    return;
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.shared.end.load(Ordering::SeqCst)
    }

    /// Over one subscription, to its end.
    fn converse(&mut self) -> Result<(), Fatal> {
        let Some(mut wire) = self.connected() else { return Ok(()) };
        self.stopped.clear();
        let subscribe = json!(["connChange", self.product, self.token]);
        match wire.try_call("sess_subscribe", subscribe) {
            None => return Ok(()),
            Some(subscribed) => drop(subscribed.map_err(|error| fatal("subscribe", &error))?),
        }
        wire.stream().set_read_timeout(Some(Duration::from_millis(10))).expect("set");
        let mut reported = Instant::now();
        while !self.is_over() {
            match wire.try_told("sess_subscription") {
                Err(()) => return Ok(()),
                Ok(None) => {}
                Ok(Some(params)) => self.told(&params["result"])?,
            }
            if self.shared.leave.swap(false, Ordering::SeqCst) {
                self.shared.up.store(false, Ordering::SeqCst);
                self.call("stopSession", &json!([self.channel]))?;
            }
            if self.shared.up.load(Ordering::SeqCst) && reported.elapsed() > REPORT {
                reported = Instant::now();
                self.report()?;
            }
        }
        Ok(())
    }

    fn told(&mut self, told: &Value) -> Result<(), Fatal> {
        assert_eq!(told["channel"], json!(self.channel));
        if told["command"] == "start" {
            self.stopped.remove(&self.channel);
            if self.cleaning.is_some_and(|since| since.elapsed() < CLEANING) {
                self.shared.lost.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            return if self.shared.up.load(Ordering::SeqCst) { Ok(()) } else { self.start() };
        }
        self.shared.stops.fetch_add(1, Ordering::SeqCst);
        if !self.stopped.insert(self.channel) {
            return Err(Fatal("told a stop twice".into()));
        }
        self.cleaning = Some(Instant::now());
        self.shared.up.store(false, Ordering::SeqCst);
        self.call("stopSession", &json!([self.channel])).map(drop)
    }

    fn start(&mut self) -> Result<(), Fatal> {
        self.call("serviceReady", &json!([self.channel]))?;
        if self.call("startSession", &json!([self.channel, "", 0]))? {
            self.shared.carried.store(0, Ordering::SeqCst);
            self.shared.up.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    fn report(&mut self) -> Result<(), Fatal> {
        let carried = self.shared.carried.fetch_add(1000, Ordering::SeqCst) + 1000;
        if !self.call("updateSession", &json!([self.channel, carried]))? {
            // The one error that it knows: the client is cut off.
            self.shared.up.store(false, Ordering::SeqCst);
            self.call("stopSession", &json!([self.channel]))?;
        }
        Ok(())
    }

    /// Calls on a connection of its own, again where that breaks; whether the channel may be used.
    fn call(&self, name: &str, more: &Value) -> Result<bool, Fatal> {
        let mut params = vec![json!(self.product), json!(self.token)];
        params.extend(more.as_array().expect("an array").iter().cloned());
        loop {
            let Some(mut wire) = self.connected() else { return Ok(false) };
            match wire.try_call(&format!("sess_{name}"), json!(params)) {
                // The host went away meanwhile.
                None => {}
                Some(Ok(_)) => return Ok(true),
                Some(Err(error)) if error.message == NON_ACTIVE && name != "stopSession" => {
                    return Ok(false);
                }
                Some(Err(error)) => return Err(fatal(name, &error)),
            }
        }
    }

    fn connected(&self) -> Option<Wire> {
        while !self.is_over() {
            if let Some(wire) = Wire::try_connect(self.address) {
                return Some(wire);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

fn fatal(call: &str, error: &Refusal) -> Fatal {
    Fatal(format!("{call}: {error:?}"))
}
