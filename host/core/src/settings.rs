//! What the core is told before it starts.

use std::time::Duration;

use privatix_base::config::OrderPolicy;
use privatix_domain::billing::Tolerance;

/// What is told whatever the side.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a started channel may take to become active.
    pub activation_timeout: Duration,
    /// The most that a channel may be used between two acknowledged reports, in smallest units.
    pub max_unreported: u64,
}

/// What is told to one side alone; it decides for good which side this host is.
#[derive(Debug, Clone)]
pub enum PartySettings {
    /// An agent's.
    Agent(AgentSettings),
    /// A client's.
    Client(ClientSettings),
}

/// What an agent is told.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// By when after its order a channel's first payment has to be there; an agent ends it else.
    pub first_payment_timeout: Duration,
    /// Its URL as clients see it, without a path.
    pub exchange: String,
    /// Whose orders it accepts.
    pub orders: OrderPolicy,
    /// Signing keys of named clients, as text.
    pub allowlist: Vec<String>,
    /// Channels one client may have at a time.
    pub max_channels_per_client: u32,
    /// Orders one client may make in an hour.
    pub max_orders_per_hour: u32,
    /// Orders of one client that may wait for the operator.
    pub max_waiting_orders_per_client: u32,
    /// Orders that may wait for the operator; named clients may order beyond it.
    pub max_waiting_orders: u32,
    /// Told to clients instead of what a module found out.
    pub service_endpoint_address: Option<String>,
}

/// What a client is told.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Whether it pays elsewhere than at the URL of the offering.
    pub allow_foreign_payment_receiver: bool,
    /// By how much an agent's meter may be above its own.
    pub tolerance: Tolerance,
}
