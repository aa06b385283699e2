//! `privatix product`.

use std::path::Path;

use clap::Subcommand;
use uuid::Uuid;

use super::{host, offline, output};
use privatix_core::ProductView;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List registered products
    List,
    /// Give a product, with its offerings and channels, to another module. Works without a running host
    Transfer {
        /// The product's id
        product: Uuid,
        /// The name of the module that gets the product
        module: String,
    },
}

pub(super) async fn run(command: Command, home: &Path, json: bool) -> anyhow::Result<()> {
    if let Command::Transfer { product, module } = command {
        offline::transfer(home, product, &module).await?;
        return output::text(&format!("{product} belongs to {module}"));
    }
    let products: Vec<ProductView> = host(home)?.get("/v1/products").await?;
    if json {
        return output::json(&products);
    }
    let rows: Vec<Vec<String>> = products
        .into_iter()
        .map(|product| {
            let template =
                |hash: Option<&String>| hash.map_or("-".into(), |hash| hash[..12].to_owned());
            vec![
                product.name,
                product.role,
                product.version,
                product.id.to_string(),
                template(Some(&product.access_template)),
                template(product.offering_template.as_ref()),
            ]
        })
        .collect();
    output::table(
        &["NAME", "ROLE", "VERSION", "PRODUCT", "ACCESS TEMPLATE", "OFFERING TEMPLATE"],
        &rows,
    )
}
