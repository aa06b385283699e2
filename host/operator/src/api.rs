//! The requests an operator can make of a running host.

use std::future::Future;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::UnixListener;
use uuid::Uuid;

use super::view::Transfer;
use privatix_domain::code::Code;
use privatix_exchange::peer::Peer;
use privatix_modules::registry::{self, ModuleView, Registry};
use privatix_plugin_api::message::ClientKey;

use privatix_core::{
    AgentApi, ClientApi, NewToken, OperatorApi, ProductView, Refused, TemplateView, Trouble,
};

/// What the requests are answered from.
#[derive(Clone)]
pub struct Api {
    /// The modules.
    pub registry: Arc<Registry>,
    /// Who serves which product.
    pub router: Arc<privatix_modules::router::Router>,
    /// What is asked of the core.
    pub operator: OperatorApi,
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
        .merge(super::selling::routes())
        .merge(super::buying::routes())
        .fallback(async || Failure(Refused::not_found("this host does not know that request")))
        .with_state(api)
}

async fn modules(State(api): State<Api>) -> Json<Vec<ModuleView>> {
    let trouble = api.operator.inventory().trouble();
    Json(api.registry.list().into_iter().map(|view| beside(view, trouble.as_ref())).collect())
}

/// A module on a host whose database does not work: nothing that it reports is saved.
fn beside(view: ModuleView, trouble: Option<&Trouble>) -> ModuleView {
    let Some(trouble) = trouble else { return view };
    let health = view.health.is_some() || view.state == registry::State::Running;
    let health = health.then(|| trouble.to_string());
    ModuleView { health, database: Some(trouble.clone()), ..view }
}

async fn module(State(api): State<Api>, Path(name): Path<String>) -> Answer<ModuleView> {
    let found = api.registry.get(&name);
    found
        .map(|view| Json(beside(view, api.operator.inventory().trouble().as_ref())))
        .ok_or_else(|| Refused::not_found(format!("no module is called {name:?}")).into())
}

async fn token(State(api): State<Api>, Path(name): Path<String>) -> Answer<NewToken> {
    let unknown = || Refused::not_found(format!("no module is called {name:?}"));
    let module = api.registry.get(&name).ok_or_else(unknown)?;
    match module.version {
        Some(version) if version.standalone => Ok(Json(api.operator.token_make(&name).await?)),
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

async fn disable(State(api): State<Api>, Path(name): Path<String>) -> Answer<()> {
    if api.registry.get(&name).is_none() {
        return Err(Refused::not_found(format!("no module is called {name:?}")).into());
    }
    api.operator.inventory().module_switch(&name, true).await?;
    api.registry.nudge();
    Ok(Json(()))
}

async fn enable(State(api): State<Api>, Path(name): Path<String>) -> Answer<()> {
    api.operator.inventory().module_switch(&name, false).await?;
    api.registry.nudge();
    Ok(Json(()))
}

async fn release(State(api): State<Api>, Path(name): Path<String>) -> Answer<()> {
    api.operator.inventory().module_release(&name).await?;
    api.registry.nudge();
    Ok(Json(()))
}

async fn transfer(
    State(api): State<Api>,
    Path(id): Path<Uuid>,
    Json(Transfer { module }): Json<Transfer>,
) -> Answer<()> {
    api.operator.inventory().product_transfer(id, &module).await?;
    api.registry.nudge();
    Ok(Json(()))
}

async fn products(State(api): State<Api>) -> Answer<Vec<ProductView>> {
    Ok(Json(api.operator.inventory().products().await?))
}

async fn templates(State(api): State<Api>) -> Answer<Vec<TemplateView>> {
    Ok(Json(api.operator.inventory().templates().await?))
}

async fn template(State(api): State<Api>, Path(hash): Path<String>) -> Answer<TemplateView> {
    Ok(Json(api.operator.inventory().template(&hash).await?))
}

/// What only an agent does: a host that is none refuses the request.
pub(super) struct Agent(pub(super) AgentApi);

impl FromRequestParts<Api> for Agent {
    type Rejection = Failure;

    async fn from_request_parts(_: &mut Parts, api: &Api) -> Result<Self, Failure> {
        Ok(Self(api.operator.party().agent()?.clone()))
    }
}

/// What only a client does: a host that is none refuses the request.
pub(super) struct Client(pub(super) ClientApi);

impl FromRequestParts<Api> for Client {
    type Rejection = Failure;

    async fn from_request_parts(_: &mut Parts, api: &Api) -> Result<Self, Failure> {
        Ok(Self(api.operator.party().client()?.clone()))
    }
}

/// A channel by its id.
pub(super) struct Channel(pub(super) ClientKey);

impl<S: Send + Sync> FromRequestParts<S> for Channel {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let id = Path::<String>::from_request_parts(parts, state).await;
        let Path(id) = id.map_err(IntoResponse::into_response)?;
        let unknown = |_| Refused::new(Code::ChannelNotFound, format!("{id:?} is no channel's id"));
        id.parse().map(Self).map_err(|error| Failure(unknown(error)).into_response())
    }
}

/// The answer of a handler.
pub(super) type Answer<T> = Result<Json<T>, Failure>;

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
