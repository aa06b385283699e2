//! Which generation serves a product now, and the way of a command to it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;
use tokio::time::{Duration, timeout};
use uuid::Uuid;

use super::generation::Generation;
use super::line::Line;

/// How long a program waits for a module that is not there.
const COMING_UP: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Default)]
pub struct Router {
    routes: RwLock<HashMap<Uuid, Arc<Generation>>>,
    opened: watch::Sender<u64>,
}

impl Router {
    /// The generation that serves a product, if one is running and can be told.
    pub fn route(&self, product: Uuid) -> Option<Arc<Generation>> {
        self.generation(product).filter(|generation| generation.is_there())
    }

    /// The line of a standalone module that is running, connected or not.
    pub fn line(&self, product: Uuid) -> Option<Arc<Line>> {
        self.generation(product)?.line().cloned()
    }

    /// The same, waited for a little: a module that is coming up or being replaced is not gone.
    pub async fn line_soon(&self, product: Uuid) -> Option<Arc<Line>> {
        self.line_within(product, COMING_UP).await
    }

    /// The same, waited for so long.
    pub async fn line_within(&self, product: Uuid, patience: Duration) -> Option<Arc<Line>> {
        let mut opened = self.opened.subscribe();
        let wait = async {
            loop {
                opened.borrow_and_update();
                match self.line(product) {
                    Some(line) => return Some(line),
                    None => opened.changed().await.ok()?,
                }
            }
        };
        timeout(patience, wait).await.ok().flatten()
    }

    fn generation(&self, product: Uuid) -> Option<Arc<Generation>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).get(&product).cloned()
    }

    /// From now on this generation serves the product.
    pub fn open(&self, product: Uuid, generation: Arc<Generation>) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.insert(product, generation);
        drop(routes);
        self.opened.send_modify(|count| *count += 1);
    }

    /// From now on nobody serves the product.
    pub fn close(&self, product: Uuid) {
        self.routes.write().unwrap_or_else(PoisonError::into_inner).remove(&product);
    }
}
