//! Puts the manifest into the library.

use privatix_plugin_api::build::Package;

fn main() {
    Package::new("faulty", "3e707121-1697-4498-9eec-82727fbf070a")
        .access_template("faulty.access.json")
        .offering_template("faulty.offering.json")
        .config_schema("faulty.config.json")
        .emit();
}
