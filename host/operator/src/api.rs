//! The requests an operator can make of a running host.

use std::future::Future;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::UnixListener;
use uuid::Uuid;

use super::view::Transfer;
use privatix_domain::code::Code;
use privatix_exchange::peer::Peer;
use privatix_modules::registry::{self, ModuleView, Registry};

use privatix_core::{Inventory, NewToken, ProductView, Refused, Service, TemplateView, Trouble};

/// What the requests are answered from.
#[derive(Clone)]
pub struct Api {
    /// The modules.
    pub registry: Arc<Registry>,
    /// What the database knows of modules and products.
    pub inventory: Inventory,
    /// Who serves which product.
    pub router: Arc<privatix_modules::router::Router>,
    /// Everything about offerings, orders and channels.
    pub service: Service,
    /// The way to agents.
    pub peer: Peer,
}

/// Answers on a socket until told to stop; requests under way are finished.
///
/// # Errors
/// When the socket breaks.
pub async fn serve(
    listener: UnixListener,
    api: Api,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, routes(api)).with_graceful_shutdown(stop).await
}

fn routes(api: Api) -> Router {
    Router::new()
        .route("/v1/modules", get(modules))
        .route("/v1/modules/{name}", get(module))
        .route("/v1/modules/{name}/token", post(token))
        .route("/v1/modules/{name}/disable", post(disable))
        .route("/v1/modules/{name}/enable", post(enable))
        .route("/v1/modules/{name}/release", post(release))
        .route("/v1/products", get(products))
        .route("/v1/products/{id}/transfer", post(transfer))
        .route("/v1/templates", get(templates))
        .route("/v1/templates/{hash}", get(template))
        .merge(super::trade::routes())
        .fallback(async || Failure(Refused::not_found("this host does not know that request")))
        .with_state(api)
}

async fn modules(State(api): State<Api>) -> Json<Vec<ModuleView>> {
    let trouble = api.inventory.trouble();
    Json(api.registry.list().into_iter().map(|view| beside(view, trouble.as_ref())).collect())
}

/// A module on a host whose database does not work: nothing that it reports is saved.
fn beside(view: ModuleView, trouble: Option<&Trouble>) -> ModuleView {
    let Some(trouble) = trouble else { return view };
    let health = view.health.is_some() || view.state == registry::State::Running;
    let health = health.then(|| trouble.to_string());
    ModuleView { health, database: Some(trouble.clone()), ..view }
}

async fn module(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<ModuleView>, Failure> {
    let found = api.registry.get(&name);
    found
        .map(|view| Json(beside(view, api.inventory.trouble().as_ref())))
        .ok_or_else(|| Refused::not_found(format!("no module is called {name:?}")).into())
}

async fn token(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<NewToken>, Failure> {
    let unknown = || Refused::not_found(format!("no module is called {name:?}"));
    let module = api.registry.get(&name).ok_or_else(unknown)?;
    match module.version {
        Some(version) if version.standalone => Ok(Json(api.service.token_make(&name).await?)),
        Some(_) => {
            let text = format!("{name} is a library; only a standalone module needs a token");
            Err(Refused::new(Code::NotStandalone, text).into())
        }
        None => {
            let text =
                format!("{name} is {}; see: privatix module explain {name}", module.state.as_str());
            Err(Refused::new(Code::NotRunning, text).into())
        }
    }
}

async fn disable(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<()>, Failure> {
    if api.registry.get(&name).is_none() {
        return Err(Refused::not_found(format!("no module is called {name:?}")).into());
    }
    api.inventory.module_switch(&name, true).await?;
    api.registry.nudge();
    Ok(Json(()))
}

async fn enable(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<()>, Failure> {
    api.inventory.module_switch(&name, false).await?;
    api.registry.nudge();
    Ok(Json(()))
}

async fn release(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<()>, Failure> {
    api.inventory.module_release(&name).await?;
    api.registry.nudge();
    Ok(Json(()))
}

async fn transfer(
    State(api): State<Api>,
    Path(id): Path<Uuid>,
    Json(Transfer { module }): Json<Transfer>,
) -> Result<Json<()>, Failure> {
    api.inventory.product_transfer(id, &module).await?;
    api.registry.nudge();
    Ok(Json(()))
}

async fn products(State(api): State<Api>) -> Result<Json<Vec<ProductView>>, Failure> {
    Ok(Json(api.inventory.products().await?))
}

async fn templates(State(api): State<Api>) -> Result<Json<Vec<TemplateView>>, Failure> {
    Ok(Json(api.inventory.templates().await?))
}

async fn template(
    State(api): State<Api>,
    Path(hash): Path<String>,
) -> Result<Json<TemplateView>, Failure> {
    Ok(Json(api.inventory.template(&hash).await?))
}

/// A refused request.
pub(super) struct Failure(Refused);

impl<E: Into<Refused>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.operator_status());
        (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(self.0)).into_response()
    }
}
