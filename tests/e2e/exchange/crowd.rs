//! Strangers from many networks at once, who keep all the places that they can get.

use privatix_domain::signed::Kind;
use serde_json::json;

use super::seller::{Seller, client, order, request};
use super::wire::{ask, head, raw};
use crate::support::crowd::Crowd;

/// As many as took everything once.
const ADDRESSES: u8 = 48;
const EACH: usize = 64;

#[test]
fn a_client_that_is_known_is_answered_every_time_while_a_crowd_half_asks() {
    let seller = Seller::open();
    let offering = seller.offer(3);
    let customer = client(1);
    let channel = seller.channel(&offering, &customer);
    let account = || {
        let request = request(Kind::AccountRequest, channel, &customer, &json!({}));
        seller.ask(channel, "account", &request).status
    };
    assert_eq!(account(), 200, "known from here on");

    let orders = format!("{}{{\"offering\":", head("POST", "/v1/orders", 1000));
    let halves = ["", "GET /v1/off", "GET /v1/offerings HTTP/1.1\r\nHost: a\r\n", &orders];
    let crowd = Crowd::of(seller.address, ADDRESSES, EACH, &halves);
    let all = usize::from(ADDRESSES) * EACH;
    let mut answers = 0;
    // Until each has come back twice: what was closed is opened again.
    while crowd.opened() < 3 * all || answers < 20 {
        assert_eq!(account(), 200, "after {answers} answers, {} connections", crowd.opened());
        answers += 1;
    }
    assert_eq!(ask(seller.address, "GET", "/v1/offerings", b"").status, 200);
    let more = seller.order(&order(&offering, &customer, &json!({})));
    assert_eq!(more.status, 200, "{more:?}");
    eprintln!("{answers} of {answers} answers, {} connections of the crowd", crowd.opened());
    drop(crowd);
    // The places are free again, for everybody.
    assert_eq!(
        raw(seller.address, b"GET /v1/offerings HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .expect("answered")
            .status,
        200
    );
}
