//! A service with two products, and channels in any status.

use std::collections::BTreeMap;
use std::time::Duration;

use privatix_plugin_api::manifest::{Role, UsageReporting};
use privatix_plugin_api::message::{
    AccessMessage, ApiError, ClientKey, CoreRequest, Password, SessionId, Status, Usage,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    AgentApi, AgentSettings, Caller, ClientApi, ClientSettings, CoreReply, OperatorApi, Outbox,
    Party, PartySettings, Question, Registration, Service, Settings,
};
use privatix_base::clock::{self, UnixSeconds};
use privatix_base::config::OrderPolicy;
use privatix_domain::billing::{Terms, Thresholds, Tolerance};
use privatix_domain::identity::Identity;
use privatix_domain::offering::Offering;
use privatix_domain::status::{ChannelState, Hold, Holds};
use privatix_domain::template::{Template, TemplateKind};
use privatix_store::{
    ChannelRow, NewSession, OfferingRow, OrderRow, OrderState, PendingCommand, ProductRow,
    SessionRow, StateChange, Store,
};

pub(super) const MINE: Uuid = Uuid::from_u128(1);
pub(super) const OTHER: Uuid = Uuid::from_u128(2);

/// The supply that is left of every offering.
pub(super) const SUPPLY: u64 = 5;

pub(super) struct World {
    pub(super) service: Service,
    pub(super) store: Store,
    pub(super) identity: Identity,
    role: Role,
    access_template: String,
    _home: tempfile::TempDir,
}

impl World {
    pub(super) async fn new(role: Role) -> Self {
        Self::with(role, |_| {}).await
    }

    pub(super) async fn with(role: Role, change: impl FnOnce(&mut Told)) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let store = Store::open(&home.path().join("state.db")).await.expect("opened");
        let service = told(role, change).service(store.clone());
        let access = template(TemplateKind::Access);
        for (product, name) in [(MINE, "mine"), (OTHER, "other")] {
            let registration = Registration {
                product,
                name,
                version: "1.0.0",
                usage_reporting: UsageReporting::Total,
                access: &access,
                offering: Some(&template(TemplateKind::Offering)),
            };
            service.upkeep().register(registration).await.expect("registered");
        }
        let access_template = access.hash().to_owned();
        Self { service, store, identity: identity(1), role, access_template, _home: home }
    }

    /// The service of the same host after a restart with other settings.
    pub(super) fn restarted(&self, change: impl FnOnce(&mut Told)) -> Service {
        told(self.role, change).service(self.store.clone())
    }

    /// What only an agent does.
    pub(super) fn agent(&self) -> AgentApi {
        agent(&self.service)
    }

    /// What only a client does.
    pub(super) fn client(&self) -> ClientApi {
        self.service.party().client().expect("a client").clone()
    }

    /// What an operator asks for.
    pub(super) fn operator(&self) -> OperatorApi {
        self.service.operator()
    }

    /// What modules are told.
    pub(super) fn outbox(&self) -> Outbox {
        self.service.outbox()
    }

    /// Bills all channels, or only those that have not ended. Returns the channels whose agents have
    /// to be asked; an agent asks nobody.
    pub(super) async fn bill_all(&self, over_too: bool) -> Vec<Question> {
        bill_all(&self.service, over_too).await
    }

    /// A channel of a product of mine.
    pub(super) async fn channel(&self, status: Status) -> ClientKey {
        self.channel_with(status, &[], |_| {}).await
    }

    pub(super) async fn channel_with(
        &self,
        status: Status,
        holds: &[Hold],
        change: impl FnOnce(&mut ChannelRow),
    ) -> ClientKey {
        let mut row = self.channel_row(ClientKey(Uuid::new_v4()), state(status, holds));
        change(&mut row);
        let offering = terms(row.id);
        self.add(row, &offering).await
    }

    async fn add(&self, row: ChannelRow, offering: &Value) -> ClientKey {
        let mut txn = self.store.begin().await.expect("begun");
        txn.offering_add(&offering_row(&row, offering)).await.expect("an offering");
        txn.order_add(&order_row(&row)).await.expect("an order");
        txn.channel_add(&row).await.expect("a channel");
        let read: Option<Offering> = serde_json::from_value(offering.clone()).ok();
        if let Some(terms) = read.as_ref().map(Terms::from) {
            let thresholds = match self.role {
                Role::Agent => Thresholds::of_agent(&terms, row.deposit, 0),
                Role::Client => Thresholds::of_client(&terms),
            };
            txn.billing_set(row.id, 0, thresholds).await.expect("an alarm");
        }
        txn.commit().await.expect("committed");
        row.id
    }

    /// A channel with access whose offering has terms: those of an offering of units that cost nothing,
    /// with some fields changed.
    pub(super) async fn priced(
        &self,
        status: Status,
        holds: &[Hold],
        terms: &Value,
        deposit: u64,
    ) -> ClientKey {
        let mut row = self.channel_row(ClientKey(Uuid::new_v4()), state(status, holds));
        let access = serde_json::to_string(&access_message(row.id)).expect("JSON");
        (row.deposit, row.access) = (deposit, Some(access));
        let mut message = json!({
            "templateHash": "0".repeat(64), "accessTemplateHash": self.access_template,
            "nonce": Uuid::new_v4(), "product": MINE,
            "agentPublicKey": identity(1).public().signing, "serviceName": "test", "country": "SE",
            "supply": 1, "unitName": "unit", "unitType": "units", "unitSize": 1,
            "billingType": "postpaid", "setupPrice": 0, "unitPrice": 0, "billingInterval": 1,
            "exchange": "http://192.0.2.1",
        });
        for (name, value) in terms.as_object().expect("an object") {
            message[name] = value.clone();
        }
        self.add(row, &message).await
    }

    fn channel_row(&self, id: ClientKey, state: ChannelState) -> ChannelRow {
        let other = identity(2).public();
        let now = clock::unix_now();
        ChannelRow {
            id,
            product: MINE,
            order_hash: format!("order {id}"),
            offering: format!("offering {id}"),
            peer: other.signing.to_string(),
            peer_sealing: (self.role == Role::Agent).then(|| other.sealing.to_string()),
            deposit: 0,
            access_template: self.access_template.clone(),
            access_serial: 1,
            access: None,
            state,
            reason: "made by the test".into(),
            since: now,
            created_at: now,
            activate_by: None,
            fault_until: None,
            fault_count: 0,
        }
    }

    /// A session of a channel, open unless it was stopped.
    pub(super) async fn session(
        &self,
        channel: ClientKey,
        stopped: Option<UnixSeconds>,
    ) -> SessionId {
        let id = SessionId(Uuid::now_v7());
        let started_at = clock::unix_now();
        let session = NewSession {
            id,
            channel,
            client_address: None,
            client_port: None,
            started_at,
            measured: false,
        };
        let mut txn = self.store.begin().await.expect("begun");
        txn.session_open(&session).await.expect("opened");
        if let Some(stopped) = stopped {
            txn.session_close(id, stopped).await.expect("closed");
        }
        txn.commit().await.expect("committed");
        id
    }

    /// Gives a channel the state it should be in, with nothing to be told.
    pub(super) async fn set(&self, channel: ClientKey, change: StateChange<'_>) {
        let mut txn = self.store.begin().await.expect("begun");
        txn.channel_change(channel, &change, clock::unix_now()).await.expect("changed");
        txn.commit().await.expect("committed");
    }

    /// A call of the module of a product.
    pub(super) async fn call_as(
        &self,
        product: Uuid,
        request: CoreRequest,
    ) -> Result<CoreReply, ApiError> {
        self.service.modules().call(&Caller { product, name: "test".into() }, request).await
    }

    pub(super) async fn call(&self, request: CoreRequest) -> Result<CoreReply, ApiError> {
        self.call_as(MINE, request).await
    }

    /// The outcome of a call in a word or two.
    pub(super) async fn said(&self, request: CoreRequest) -> String {
        word(&self.call(request).await)
    }

    pub(super) async fn start_session(&self, channel: ClientKey) -> SessionId {
        match self.call(start_session(channel)).await {
            Ok(CoreReply::Started(started)) => started.session,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn row(&self, channel: ClientKey) -> ChannelRow {
        self.store.channel_find(channel).await.expect("read").expect("a channel")
    }

    /// Status and holds in words.
    pub(super) async fn state(&self, channel: ClientKey) -> String {
        let state = self.row(channel).await.state;
        let plus = if state.holds.is_empty() { "" } else { "+" };
        format!("{}{plus}{}", state.status, state.holds)
    }

    pub(super) async fn product(&self, id: Uuid) -> ProductRow {
        self.store.product_get(id).await.expect("read").expect("a product")
    }

    pub(super) async fn sessions(&self, channel: ClientKey) -> Vec<SessionRow> {
        self.store
            .session_page(channel, privatix_store::Page { after: None, status: "", limit: 1000 })
            .await
            .expect("listed")
    }

    pub(super) async fn usage(&self, channel: ClientKey) -> u64 {
        self.store.billing_some(&[channel]).await.expect("read")[0].usage
    }

    /// What the module has to be told of a channel, now or later.
    pub(super) async fn pending(&self, channel: ClientKey) -> Option<PendingCommand> {
        let commands = self.store.channel_commands(UnixSeconds::MAX).await.expect("read");
        commands.into_iter().find(|command| command.channel == channel)
    }

    /// The same in a word.
    pub(super) async fn told(&self, channel: ClientKey) -> &'static str {
        match self.pending(channel).await {
            None => "-",
            Some(command) if command.start => "start",
            Some(_) => "stop",
        }
    }

    /// The right password of a channel.
    pub(super) async fn password(&self, channel: ClientKey) -> Password {
        self.identity.password(channel, &self.row(channel).await.order_hash)
    }
}

pub(super) fn start_session(client_key: ClientKey) -> CoreRequest {
    CoreRequest::StartSession { client_key, client_address: None, client_port: None }
}

pub(super) fn total(client_key: ClientKey, session: SessionId, total: u64) -> CoreRequest {
    CoreRequest::UpdateSession { client_key, session, usage: Usage::Total(total) }
}

pub(super) fn increment(
    client_key: ClientKey,
    session: SessionId,
    sequence: u64,
    amount: u64,
) -> CoreRequest {
    let usage = Usage::Incremental { sequence, amount };
    CoreRequest::UpdateSession { client_key, session, usage }
}

pub(super) fn product_config(pairs: &[(&str, &str)]) -> CoreRequest {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    CoreRequest::SetProductConfig { config: pairs.collect::<BTreeMap<_, _>>() }
}

/// An outcome in a word or two.
pub(super) fn word(outcome: &Result<CoreReply, ApiError>) -> String {
    match outcome {
        Ok(CoreReply::Done(_)) => "ok".into(),
        Ok(CoreReply::Status(reply)) => reply.status.to_string(),
        Ok(CoreReply::Started(started)) => format!("started {}", started.status),
        Ok(CoreReply::Access(_)) => "access".into(),
        Ok(CoreReply::Offered(offered)) => format!("offered {}", offered.0.status),
        Err(error) => format!("{:?}", error.name),
    }
}

/// An access message as a client keeps it.
pub(super) fn access_message(channel: ClientKey) -> AccessMessage {
    let message = json!({
        "templateHash": "0".repeat(64), "nonce": "n", "username": channel, "password": "p",
        "paymentReceiverAddress": "http://192.0.2.1/v1/payments",
        "serviceEndpointAddress": "192.0.2.1", "additionalParams": { "address": "192.0.2.1:1" },
    });
    serde_json::from_value(message).expect("an access message")
}

pub(super) fn identity(number: u8) -> Identity {
    Identity::from_entropy([number; 96])
}

pub(super) fn template(kind: TemplateKind) -> Template {
    let bytes: &[u8] = match kind {
        TemplateKind::Access => include_bytes!("../../../../plugins/echo/echo.access.json"),
        TemplateKind::Offering => include_bytes!("../../../../plugins/echo/echo.offering.json"),
    };
    Template::parse(kind, bytes).expect("a template")
}

/// What a host is told before it starts, of both sides, so that a test can change what it is about.
pub(super) struct Told {
    pub(super) common: Settings,
    pub(super) agent: AgentSettings,
    pub(super) client: ClientSettings,
    role: Role,
}

impl Told {
    fn service(self, store: Store) -> Service {
        let own = match self.role {
            Role::Agent => PartySettings::Agent(self.agent),
            Role::Client => PartySettings::Client(self.client),
        };
        Service::new(store, identity(1), self.common, own)
    }
}

fn told(role: Role, change: impl FnOnce(&mut Told)) -> Told {
    let mut told = Told {
        common: Settings { activation_timeout: Duration::from_secs(60), max_unreported: 64 << 20 },
        agent: AgentSettings {
            first_payment_timeout: Duration::from_secs(600),
            exchange: "http://192.0.2.1".into(),
            orders: OrderPolicy::Open,
            allowlist: Vec::new(),
            max_channels_per_client: 10,
            max_orders_per_hour: 10,
            max_waiting_orders_per_client: 5,
            max_waiting_orders: 1000,
            service_endpoint_address: None,
        },
        client: ClientSettings {
            allow_foreign_payment_receiver: false,
            tolerance: Tolerance::default(),
        },
        role,
    };
    change(&mut told);
    told
}

/// What only an agent does.
pub(super) fn agent(service: &Service) -> AgentApi {
    service.party().agent().expect("an agent").clone()
}

/// As [`World::bill_all`].
pub(super) async fn bill_all(service: &Service, over_too: bool) -> Vec<Question> {
    match service.party() {
        Party::Agent(agent) => {
            agent.bill_all(over_too).await.expect("judged");
            Vec::new()
        }
        Party::Client(client) => client.bill_all(over_too).await.expect("billed"),
    }
}

/// The terms of the offering of a channel that a test has made.
pub(super) fn terms(channel: ClientKey) -> Value {
    json!({ "serviceName": channel })
}

fn state(status: Status, holds: &[Hold]) -> ChannelState {
    let holds = holds.iter().copied().fold(Holds::NONE, Holds::with);
    ChannelState { status, holds }
}

fn offering_row(channel: &ChannelRow, message: &Value) -> OfferingRow {
    OfferingRow {
        hash: channel.offering.clone(),
        product: channel.product,
        agent: "agent".into(),
        message: message.to_string(),
        supply_left: SUPPLY,
        made_at: channel.created_at,
        withdrawn_at: None,
    }
}

fn order_row(channel: &ChannelRow) -> OrderRow {
    OrderRow {
        hash: channel.order_hash.clone(),
        offering: channel.offering.clone(),
        client: channel.peer.clone(),
        nonce: channel.id.to_string(),
        message: "{}".into(),
        state: OrderState::Accepted,
        held: false,
        reply: None,
        created_at: channel.created_at,
        cancelled_at: None,
    }
}
