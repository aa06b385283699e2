//! Which of a client's products an offering is for. The hashes of the templates decide: they are
//! what both sides must share. A product id is only a hint, because the two sides of one service
//! may come as products with different ids.

use uuid::Uuid;

use super::Offering;
use crate::code::Code;

/// What of a client's product decides whether an offering is for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The product's id.
    pub id: Uuid,
    /// The module's name.
    pub name: &'a str,
    /// Hash of its access template.
    pub access_template: &'a str,
    /// Hash of its offering template, if it has one.
    pub offering_template: Option<&'a str>,
    /// When it was registered or changed last; of two products with one name, the newer counts.
    pub updated_at: u64,
}

/// Why an offering is for none of the products, or for which one is not clear.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// No product has its templates.
    #[error(
        "no module here has the templates of this offering (product {product}). Drop in the \
         package of the module that the agent sells with, and fetch again"
    )]
    Unknown {
        /// The offering's product id.
        product: Uuid,
    },
    /// The product is here, with other templates.
    #[error(
        "the module {name:?} is here, but its templates are not those of this offering. Both sides \
         must run versions of the module with the same templates; install such a version and fetch \
         again"
    )]
    OtherTemplates {
        /// The module's name.
        name: String,
    },
    /// Several products have its templates.
    #[error(
        "several modules here have the templates of this offering: {}. Choose one with --product",
        .names.join(", ")
    )]
    Several {
        /// Their names.
        names: Vec<String>,
    },
    /// The chosen product has other templates.
    #[error("the module {name:?} does not have the templates of this offering; {hint}")]
    NotChosen {
        /// The module's name.
        name: String,
        /// Which modules do.
        hint: String,
    },
}

impl MatchError {
    /// The stable name of this error.
    pub fn code(&self) -> Code {
        match self {
            Self::Unknown { .. } => Code::UnknownProduct,
            Self::OtherTemplates { .. } => Code::WrongTemplate,
            Self::Several { .. } => Code::SeveralProducts,
            Self::NotChosen { .. } => Code::WrongProduct,
        }
    }
}

/// The product that an offering is for: the one that the user has chosen by its name, now or
/// `earlier`, the only one with the offering's templates, or of several the one with the
/// offering's product id.
///
/// # Errors
/// [`MatchError`].
pub fn matching(
    offering: &Offering,
    products: &[Candidate<'_>],
    chosen: Option<&str>,
    earlier: Option<Uuid>,
) -> Result<Uuid, MatchError> {
    let newest = |one: &&Candidate<'_>| {
        !products.iter().any(|other| other.name == one.name && other.updated_at > one.updated_at)
    };
    let fitting: Vec<_> =
        products.iter().filter(newest).filter(|product| fits(product, offering)).collect();
    let names = || fitting.iter().map(|product| product.name.to_owned()).collect::<Vec<_>>();
    if let Some(chosen) = chosen {
        let found = fitting.iter().find(|product| product.name == chosen);
        return found.map(|product| product.id).ok_or_else(|| MatchError::NotChosen {
            name: chosen.to_owned(),
            hint: match names().as_slice() {
                [] => "no module here does".to_owned(),
                names => format!("these do: {}", names.join(", ")),
            },
        });
    }
    let by_id = |id: Uuid| fitting.iter().find(|product| product.id == id);
    match (fitting.as_slice(), earlier.and_then(by_id).or_else(|| by_id(offering.product))) {
        ([only], _) | (_, Some(only)) => Ok(only.id),
        ([], None) => {
            let same = products.iter().filter(newest).find(|one| one.id == offering.product);
            Err(match same {
                Some(product) => MatchError::OtherTemplates { name: product.name.to_owned() },
                None => MatchError::Unknown { product: offering.product },
            })
        }
        (_, None) => Err(MatchError::Several { names: names() }),
    }
}

fn fits(product: &Candidate<'_>, offering: &Offering) -> bool {
    product.access_template == offering.access_template_hash
        && product.offering_template == Some(offering.template_hash.as_str())
}
