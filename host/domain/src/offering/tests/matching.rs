//! Which product an offering is for.

use uuid::Uuid;

use super::*;

const OFFERED: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);
const THIRD: Uuid = Uuid::from_u128(3);

#[test]
fn the_templates_decide_and_then_the_id_or_the_user() {
    let (mine, access) = (template().hash().to_owned(), "cd".repeat(32));
    let offering = parse(&changed(&draft(), &json!({"product": OFFERED})), None);
    let offering = offering.expect("an offering");
    let product = |id, name| Candidate {
        id,
        name,
        access_template: &access,
        offering_template: Some(&mine),
        updated_at: 1,
    };
    let foreign = "ef".repeat(32);
    let other_access = |one| Candidate { access_template: &foreign, ..one };
    let other_offering = |one| Candidate { offering_template: Some(&foreign), ..one };
    let no_offering = |one| Candidate { offering_template: None, ..one };
    let newer = |one| Candidate { updated_at: 2, ..one };
    let (vpn, net, web) = (product(OFFERED, "vpn"), product(OTHER, "net"), product(THIRD, "web"));
    for (case, products, chosen, earlier, expected) in [
        ("the only one", vec![vpn], None, None, Ok(OFFERED)),
        ("with another id", vec![net], None, None, Ok(OTHER)),
        ("several: by its id", vec![net, vpn, web], None, None, Ok(OFFERED)),
        ("several: chosen", vec![net, vpn, web], Some("web"), None, Ok(THIRD)),
        ("several: chosen earlier", vec![net, vpn, web], None, Some(THIRD), Ok(THIRD)),
        ("several: chosen anew", vec![net, vpn, web], Some("net"), Some(THIRD), Ok(OTHER)),
        ("several: none chosen", vec![net, web], None, None, Err("SeveralProducts")),
        ("the choice is gone", vec![net, web], None, Some(OFFERED), Err("SeveralProducts")),
        ("none", vec![], None, None, Err("UnknownProduct")),
        ("none with the name", vec![vpn], Some("web"), None, Err("WrongProduct")),
        ("its id, another template", vec![other_access(vpn)], None, None, Err("WrongTemplate")),
        ("an id is no template", vec![other_offering(vpn), net], None, None, Ok(OTHER)),
        ("only the access template", vec![no_offering(net)], None, None, Err("UnknownProduct")),
        ("chosen in vain", vec![other_access(net), vpn], Some("net"), None, Err("WrongProduct")),
        ("replaced by another id", vec![vpn, newer(product(OTHER, "vpn"))], None, None, Ok(OTHER)),
        (
            "replaced by other templates",
            vec![net, newer(other_access(product(THIRD, "net")))],
            None,
            None,
            Err("UnknownProduct"),
        ),
    ] {
        let found =
            matching(&offering, &products, chosen, earlier).map_err(|error| error.code().code());
        assert_eq!(found, expected, "{case}");
    }
}
