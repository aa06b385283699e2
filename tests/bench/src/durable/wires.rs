//! The same core by the network: its server, and programs that have connected to it.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use privatix_core::{Caller, Service};
use privatix_modules::door::{self, Door};
use privatix_modules::generation::Generation;
use privatix_modules::line::Line;
use privatix_modules::router::Router;
use privatix_plugin_api::abi::CoreObject;
use privatix_plugin_standalone::{Wire, core};
use privatix_standalone::{Desk, Endpoint, serve};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::seed;
use crate::messages::timeouts;

/// Connections, each as the core that a program sees. The server lives as long as the runtime.
pub(super) async fn connect(
    service: Service,
    connections: u64,
) -> anyhow::Result<Vec<Arc<CoreObject>>> {
    let token =
        service.operator().token_make("bench").await.map_err(|refused| anyhow!("{refused}"))?.token;
    let caller = Caller { product: seed::PRODUCT, name: "bench".into() };
    let door = Door::new(Arc::new(service.modules()), caller, door::OF_PROGRAM);
    let line = Line::new(door, &json!({}), Arc::default());
    let router = Arc::new(Router::default());
    router.open(seed::PRODUCT, Arc::new(Generation::standalone(Arc::new(line), &timeouts())));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/ws", listener.local_addr()?);
    let endpoint = Endpoint { listener, tls: None, connections: 1024 };
    tokio::spawn(async move {
        let (_stop, stopped) = watch::channel(false);
        serve(endpoint, Desk::new(service.modules(), router), stopped).await;
    });
    let mut cores = Vec::new();
    for _ in 0..connections {
        let (wire, mut events) = Wire::open(url.clone(), token.clone());
        // Nothing is subscribed to; the connection stays for as long as this is there.
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        let card: Result<Value, _> = wire.call("service_configuration", &json!({})).await;
        card.context("a program's first call")?;
        cores.push(Arc::new(core(&wire)));
    }
    Ok(cores)
}
