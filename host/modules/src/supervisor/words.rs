//! The problems that a supervisor finds by itself.

use privatix_store::StoreError;
use uuid::Uuid;

use crate::examine::Form;
use crate::problem::{Code, Problem};

pub(super) fn duplicate(product: Uuid, form: &Form, holder: &str, name: &str) -> Problem {
    Problem::new(
        Code::DuplicateProduct,
        format!("product id {product} belongs to the module {holder:?}"),
        "a product id of its own",
        format!(
            "give this module a new id{}; or, if it is to have the product with all channels: \
             privatix product transfer {product} {name}",
            match form {
                Form::InProcess { .. } => " and build it again",
                Form::Standalone => " in its NAME.module.json",
            }
        ),
    )
}

pub(super) fn disabled(name: &str) -> Problem {
    Problem::new(
        Code::Disabled,
        "switched off by the operator",
        "a module that is switched on",
        format!("privatix module enable {name}"),
    )
}

pub(super) fn suspected(deaths: u32) -> Problem {
    Problem::new(
        Code::Suspected,
        format!("the host died {deaths} times in a row while this library came up"),
        "a library with which the host lives",
        "wait: it is tried again by itself, after the other modules; see the log of the host's last runs",
    )
}

pub(super) fn host_failed(error: &StoreError) -> Problem {
    Problem::new(
        Code::HostFailed,
        privatix_plugin_api::chain(error),
        "a database in working order",
        "see the host's log; it tries again by itself",
    )
}
