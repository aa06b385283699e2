//! What is noted of a library while it comes up.

use privatix_plugin_api::manifest::{Role, UsageReporting};
use uuid::Uuid;

use super::world::{World, template};
use crate::Registration;
use privatix_domain::template::TemplateKind;

#[tokio::test]
async fn registration_notes_the_first_step_of_the_library() {
    let world = World::new(Role::Agent).await;
    let (product, access) = (Uuid::new_v4(), template(TemplateKind::Access));
    let registration = Registration {
        product,
        name: "new",
        version: "1.0.0",
        usage_reporting: UsageReporting::Total,
        access: &access,
        offering: None,
    };
    let upkeep = world.service.upkeep();
    let registered = upkeep.library_registered(registration, "hash", "load and create");
    registered.await.expect("registered");
    let known = world.store.product_get(product).await.expect("read").expect("a product");
    assert_eq!(known.name, "new");
    let mut txn = world.store.begin().await.expect("begun");
    let steps = txn.library_steps_take().await.expect("read");
    txn.commit().await.expect("committed");
    let steps: Vec<_> = steps.iter().map(|row| (&*row.module, &*row.step)).collect();
    assert_eq!(steps, [("new", "load and create")]);
}
