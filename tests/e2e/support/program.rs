//! Standalone modules: their packages, and a program that says what a test wants, word by word.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use privatix_core::{IdentityView, OfferingView, OrderView};
use privatix_domain::template::{Template, TemplateKind};
use privatix_modules::registry::State;
use privatix_plugin_api::message::ClientKey;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};
use uuid::Uuid;

use super::module::{place, repository};
use super::trade::{draft_of, free_port};
use super::{Database, Node, PATIENCE, wait_for};

/// The files of a standalone module.
#[derive(Debug, Clone)]
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) manifest: Value,
    pub(crate) access: Vec<u8>,
    pub(crate) offering: Vec<u8>,
}

impl Described {
    /// A module of this name, with a product id that depends on the name alone.
    pub(crate) fn named(name: &str) -> Self {
        let mut id = [0x40; 16];
        for (byte, letter) in id.iter_mut().zip(name.bytes().chain(std::iter::repeat(0))) {
            *byte = letter;
        }
        let product = uuid::Builder::from_random_bytes(id).into_uuid();
        let template = |kind: &str| {
            let path = repository().join(format!("plugins/echo/echo.{kind}.json"));
            std::fs::read(path).expect("a template")
        };
        let manifest = json!({
            "name": name, "version": "1.0.0", "productId": product,
            "serviceApi": {"min": 1, "max": 1}, "roles": ["agent", "client"],
            "usageReporting": "total",
        });
        let (access, offering) = (template("access"), template("offering"));
        Self { name: name.to_owned(), manifest, access, offering }
    }

    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.manifest[field] = value;
        self
    }

    pub(crate) fn product(&self) -> Uuid {
        self.manifest["productId"].as_str().expect("an id").parse().expect("a UUID")
    }

    pub(crate) fn manifest_name(&self) -> String {
        format!("{}.module.json", self.name)
    }

    /// Puts all files into a directory, each whole at once.
    pub(crate) fn drop_into(&self, directory: &Path) {
        place(directory, &format!("{}.access.json", self.name), &self.access);
        place(directory, &format!("{}.offering.json", self.name), &self.offering);
        self.drop_manifest(directory);
    }

    pub(crate) fn drop_manifest(&self, directory: &Path) {
        place(directory, &self.manifest_name(), self.manifest.to_string().as_bytes());
    }

    /// Makes a channel that waits to be started, without another party.
    pub(crate) fn channel(&self, database: &Database) -> ClientKey {
        let access = Template::parse(TemplateKind::Access, &self.access).expect("a template");
        database.channel_of(self.product(), access.hash())
    }
}

/// A host that listens for standalone modules, with one that runs.
pub(crate) struct Station {
    pub(crate) node: Node,
    pub(crate) module: Described,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

impl Station {
    pub(crate) fn new(role: &str) -> Self {
        Self::with(role, Described::named("files"), "")
    }

    pub(crate) fn with(role: &str, module: Described, configuration: &str) -> Self {
        let (node, address) = listening(role, configuration);
        module.drop_into(&node.plugins());
        node.wait_state(&module.name, State::Running);
        let token = token(&node, &module.name);
        Self { node, module, address, token }
    }

    /// A program's connection that has shown its token.
    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(self.address, Some(&self.token)).expect("connected")
    }

    /// A connection without a token.
    pub(crate) fn bare(&self) -> Wire {
        Wire::connect(self.address, None).expect("connected")
    }

    /// A call by HTTP: status and body.
    pub(crate) fn post(&self, token: Option<&str>, body: &str) -> (u16, Value) {
        post(self.address, token, body)
    }

    /// A call of our spelling by HTTP.
    pub(crate) fn call(&self, method: &str, params: Value) -> Result<Value, Refusal> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let (status, body) = self.post(Some(&self.token), &call.to_string());
        assert_eq!(status, 200, "{body}");
        outcome(body)
    }
}

/// Two hosts with programs that have agreed on a channel.
pub(crate) struct Trade {
    pub(crate) agent: Station,
    pub(crate) client: Station,
    pub(crate) offering: String,
    pub(crate) channel: ClientKey,
}

impl Trade {
    pub(crate) fn new() -> Self {
        let module = Described::named("files");
        Self::of(module.clone(), module)
    }

    /// With a module of its own on either side.
    pub(crate) fn of(agent: Described, client: Described) -> Self {
        let agent = Station::with("agent", agent, "[agent]\norders = \"open\"\n");
        let client = Station::with("client", client, "[client]\npoll_interval = 1\n");
        let config = json!({ "config": { "externalIP": "192.0.2.1", "address": "192.0.2.1:1" } });
        agent.call("service_setProductConfig", config).expect("set");
        Self::between(agent, client, json!({ "maxUnits": 9 }))
    }

    /// The agent sells as soon as it has something to sell, and the client orders it. The terms differ
    /// from the usual ones by these fields.
    pub(crate) fn between(agent: Station, client: Station, terms: Value) -> Self {
        let draft = draft_of(&agent.module.name, terms);
        let offering: OfferingView =
            wait_for("something to sell", || agent.node.post("/v1/offerings", &draft).ok());
        let identity: IdentityView = agent.node.get("/v1/identity").expect("an identity");
        let fetch = json!({ "url": identity.exchange, "agent": identity.fingerprint });
        let _: Value = client.node.post("/v1/offerings/fetch", &fetch).expect("fetched");
        let order = json!({ "offering": offering.hash, "deposit": null, "hold": false });
        let order: OrderView = client.node.post("/v1/orders", &order).expect("ordered");
        let channel = wait_for("the agent's answer", || {
            client.node.get::<OrderView>(&format!("/v1/orders/{}", order.hash))?.channel
        });
        Self { agent, client, offering: offering.hash, channel }
    }
}

/// A host that listens for standalone modules, and where.
pub(crate) fn listening(role: &str, configuration: &str) -> (Node, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut node = Node::stopped(role, configuration);
    node.configure(&format!("[standalone]\nenabled = true\nlisten = \"{address}\"\n"));
    node.start();
    (node, address)
}

/// A new token, as an operator makes it.
pub(crate) fn token(node: &Node, module: &str) -> String {
    let output = node.privatix(&["module", "token", module]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// An error as it came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: i64,
    pub(crate) message: String,
    /// The stable name, where there is one.
    pub(crate) name: Option<String>,
}

fn outcome(mut answer: Value) -> Result<Value, Refusal> {
    assert_eq!(answer["jsonrpc"], "2.0", "{answer}");
    let error = answer["error"].take();
    if error.is_null() {
        assert!(answer.get("result").is_some(), "{answer}");
        return Ok(answer["result"].take());
    }
    Err(Refusal {
        code: error["code"].as_i64().expect("a code"),
        message: error["message"].as_str().expect("a message").to_owned(),
        name: error["data"]["name"].as_str().map(str::to_owned),
    })
}

/// A WebSocket, word by word.
pub(crate) struct Wire {
    socket: WebSocket<TcpStream>,
    calls: u64,
    /// What has come unasked.
    told: VecDeque<Value>,
}

impl Wire {
    /// Connects; an HTTP status where it is not let in.
    pub(crate) fn connect(address: SocketAddr, token: Option<&str>) -> Result<Self, u16> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_nodelay(true).expect("set");
        let mut request = format!("ws://{address}/ws").into_client_request().expect("a request");
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().expect("a header");
            request.headers_mut().insert("Authorization", value);
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Self { socket, calls: 0, told: VecDeque::new() }),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                Err(response.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Without a token; nothing where nobody listens now.
    pub(crate) fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        let (socket, _) = tungstenite::client(format!("ws://{address}/ws"), stream).ok()?;
        Some(Self { socket, calls: 0, told: VecDeque::new() })
    }

    /// As [`Wire::call`]; nothing where the connection breaks.
    pub(crate) fn try_call(
        &mut self,
        method: &str,
        params: Value,
    ) -> Option<Result<Value, Refusal>> {
        let call = json!({ "jsonrpc": "2.0", "id": "try", "method": method, "params": params });
        self.socket.send(Message::text(call.to_string())).ok()?;
        loop {
            let Message::Text(text) = self.socket.read().ok()? else { continue };
            let answer: Value = serde_json::from_str(&text).expect("JSON");
            if answer.get("method").is_none() {
                return Some(outcome(answer));
            }
            self.told.push_back(answer);
        }
    }

    /// What it is told, if it is within the time-out of its stream; an error where that broke.
    pub(crate) fn try_told(&mut self, method: &str) -> Result<Option<Value>, ()> {
        let mut told = match self.told.pop_front() {
            Some(told) => told,
            None => match self.socket.read() {
                Ok(Message::Text(text)) => serde_json::from_str(&text).expect("JSON"),
                Ok(Message::Ping(_) | Message::Pong(_)) => return Ok(None),
                Err(tungstenite::Error::Io(error))
                    if error.kind() == std::io::ErrorKind::WouldBlock =>
                {
                    return Ok(None);
                }
                Ok(_) | Err(_) => return Err(()),
            },
        };
        assert_eq!(told["method"], method, "{told}");
        Ok(Some(told["params"].take()))
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).expect("sent");
    }

    pub(crate) fn send_message(&mut self, message: Message) {
        self.socket.send(message).expect("sent");
    }

    /// The same, which may fail.
    pub(crate) fn try_send(&mut self, message: Message) -> Result<(), tungstenite::Error> {
        self.socket.send(message)
    }

    /// Below the protocol.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        self.socket.get_mut()
    }

    /// The next text.
    pub(crate) fn receive(&mut self) -> Value {
        loop {
            match self.socket.read().expect("a message") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits until the other side closes; returns the code, or 1006 where it does so without a word.
    pub(crate) fn closed(&mut self) -> u16 {
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => return frame.map_or(1005, |frame| frame.code.into()),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error))
                    if error.kind() == std::io::ErrorKind::WouldBlock =>
                {
                    panic!("not closed")
                }
                Err(_) => return 1006,
            }
        }
    }

    /// Calls, and waits for the answer to that.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Result<Value, Refusal> {
        self.calls += 1;
        let call = json!({
            "jsonrpc": "2.0", "id": self.calls, "method": method, "params": params,
        });
        self.send(&call.to_string());
        loop {
            let answer = self.receive();
            if answer.get("method").is_some() {
                self.told.push_back(answer);
                continue;
            }
            assert_eq!(answer["id"], self.calls, "{answer}");
            return outcome(answer);
        }
    }

    /// What it is told next; its parameters.
    pub(crate) fn told(&mut self, method: &str) -> Value {
        let mut told = self.told.pop_front().unwrap_or_else(|| self.receive());
        assert_eq!(told["method"], method, "{told}");
        assert!(told.get("id").is_none(), "{told}");
        told["params"].take()
    }
}

/// An HTTP POST without anybody's help.
pub(crate) fn post(address: SocketAddr, token: Option<&str>, body: &str) -> (u16, Value) {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let head = format!(
        "POST /http HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{}Content-Length: {}\r\n\r\n",
        token.unwrap_or_default(),
        body.len()
    );
    let (status, body) = exchange(address, format!("{head}{body}").as_bytes());
    (status, serde_json::from_str(&body).unwrap_or_default())
}

/// Sends bytes and reads to the end: the status and the body of the answer.
pub(crate) fn exchange(address: SocketAddr, bytes: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connected");
    stream.set_read_timeout(Some(2 * PATIENCE)).expect("set");
    // It may be answered before all of it was sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, body.to_owned())
}
