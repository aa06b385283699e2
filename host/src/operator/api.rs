//! The requests an operator can make of a running host.

use std::future::Future;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::UnixListener;

use super::view::{ProductView, Refusal, TemplateView};
use crate::modules::registry::{ModuleView, Registry};
use crate::store::{Store, StoreError};

/// What the requests are answered from.
#[derive(Clone)]
pub struct Api {
    /// The modules.
    pub registry: Arc<Registry>,
    /// The database.
    pub store: Store,
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
        .route("/v1/products", get(products))
        .route("/v1/templates", get(templates))
        .route("/v1/templates/{hash}", get(template))
        .fallback(async || Failure::NotFound("this host does not know that request".into()))
        .with_state(api)
}

async fn modules(State(api): State<Api>) -> Json<Vec<ModuleView>> {
    Json(api.registry.list())
}

async fn module(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<ModuleView>, Failure> {
    let found = api.registry.get(&name);
    found.map(Json).ok_or_else(|| Failure::NotFound(format!("no module is called {name:?}")))
}

async fn products(State(api): State<Api>) -> Result<Json<Vec<ProductView>>, Failure> {
    Ok(Json(api.store.product_list().await?.into_iter().map(ProductView::from).collect()))
}

async fn templates(State(api): State<Api>) -> Result<Json<Vec<TemplateView>>, Failure> {
    let rows = api.store.template_list().await?.into_iter();
    let views = rows.map(|row| TemplateView { document: None, ..TemplateView::from(row) });
    Ok(Json(views.collect()))
}

/// By its hash, or by a beginning of it that only one template has.
async fn template(
    State(api): State<Api>,
    Path(hash): Path<String>,
) -> Result<Json<TemplateView>, Failure> {
    let mut matching: Vec<_> = api.store.template_list().await?;
    matching.retain(|row| row.hash.starts_with(&hash));
    match (matching.pop(), matching.len()) {
        (None, _) => Err(Failure::NotFound(format!("no template's hash begins with {hash:?}"))),
        (Some(row), 0) => Ok(Json(row.into())),
        (Some(_), others) => {
            Err(Failure::NotFound(format!("{} templates begin with {hash:?}", others + 1)))
        }
    }
}

enum Failure {
    NotFound(String),
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, code, text) = match self {
            Self::NotFound(text) => (StatusCode::NOT_FOUND, "NotFound", text),
            Self::Store(error) => {
                let text = crate::chain(&error);
                tracing::error!(error = text, "an operator's request failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "Internal", text)
            }
        };
        (status, Json(Refusal { code: code.into(), text })).into_response()
    }
}
