//! Puts the manifest into the library.

use privatix_plugin_api::build::Package;

fn main() {
    Package::new("wrong_layout", "0968dc4f-2ecd-4c92-aef4-15b6f42e5802")
        .access_template("wrong_layout.access.json")
        .offering_template("wrong_layout.offering.json")
        .emit();
}
