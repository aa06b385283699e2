//! What is no request of a client at all.

use std::io::Write;
use std::thread;

use privatix_core::{ChannelView, OrderView};

use super::seller::Seller;
use super::wire::{answer, ask, connect, head, raw};

fn untouched(seller: &Seller) {
    let orders: Vec<OrderView> = seller.node.get("/v1/orders").expect("listed");
    assert_eq!(orders, []);
    let channels: Vec<ChannelView> = seller.channels();
    assert_eq!(channels, []);
    assert_eq!(ask(seller.address, "GET", "/v1/offerings", b"").status, 200);
}

#[test]
fn bodies_that_are_no_messages() {
    let seller = Seller::open();
    let deep = "[".repeat(4000);
    for (body, expected) in [
        ("", "400 InvalidJson"),
        ("{", "400 InvalidJson"),
        ("{} {}", "400 InvalidJson"),
        ("\u{feff}{}", "400 InvalidJson"),
        (r#"{"offering": "a", "offering": "a"}"#, "400 DuplicateKey"),
        (r#"{"offering": {"a": 1, "a": 1}}"#, "400 DuplicateKey"),
        (r#"{"deposit": 9007199254740992}"#, "400 NumberTooLarge"),
        (r#"{"deposit": 1e400}"#, "400 InvalidJson"),
        (r#"{"deposit": -1}"#, "400 NumberNotInteger"),
        (r#"{"deposit": 0.5}"#, "400 NumberNotInteger"),
        (&deep, "400 TooDeep"),
        ("null", "400 MalformedOrder"),
        ("[]", "400 MalformedOrder"),
        (r#"{"offering": 7}"#, "400 MalformedOrder"),
    ] {
        let found = ask(seller.address, "POST", "/v1/orders", body.as_bytes()).word();
        assert_eq!(found, expected, "{}", &body[..body.len().min(80)]);
    }
    let found = ask(seller.address, "POST", "/v1/orders", b"{\"a\": \"\xff\"}").word();
    assert_eq!(found, "400 InvalidJson", "not UTF-8");
    untouched(&seller);
}

#[test]
fn bodies_that_are_too_large() {
    const MUCH: usize = 10 * 1024 * 1024;
    let seller = Seller::open();
    let part = vec![b' '; 128 * 1024];
    let chunked = "POST /v1/orders HTTP/1.1\r\nHost: agent\r\nTransfer-Encoding: chunked\r\n\
                   Connection: close\r\n\r\n20000\r\n";
    for head in [head("POST", "/v1/orders", MUCH), chunked.to_owned()] {
        let mut stream = connect(seller.address);
        stream.write_all(head.as_bytes()).expect("sent");
        // More than is read, and little enough to wait in buffers.
        stream.write_all(&part).expect("sent");
        let said = answer(&mut stream).expect("an answer").word();
        assert_eq!(said, "413 MessageTooLarge", "{head}");
        // All of the rest, to whoever may be listening.
        let sent = (0..MUCH / part.len()).try_for_each(|_| stream.write_all(&part));
        assert!(sent.is_err(), "nobody listens");
    }
    untouched(&seller);
}

#[test]
fn what_is_not_asked_for() {
    let seller = Seller::open();
    for (method, path, expected) in [
        ("GET", "/", "404 NotFound"),
        ("GET", "/v1/offerings/", "404 NotFound"),
        ("GET", "/v1/../v1/offerings", "404 NotFound"),
        ("GET", "/v1/modules", "404 NotFound"),
        ("GET", "/v1/identity", "404 NotFound"),
        ("GET", "/v2/offerings", "404 NotFound"),
        ("POST", "/v1/channels/x/suspend", "404 NotFound"),
        ("POST", "/v1/channels/x/terminate", "404 ChannelNotFound"),
        ("POST", "/v1/channels/%00/access", "404 ChannelNotFound"),
        ("POST", "/v1/channels/%ff/access", "400"),
        ("POST", "/v1/offerings", "405"),
        ("GET", "/v1/orders", "405"),
        ("DELETE", "/v1/orders", "405"),
        ("GET", "/v1/channels/x/access", "405"),
        ("BREW", "/v1/offerings", "405"),
    ] {
        let found = ask(seller.address, method, path, b"").word();
        assert_eq!(found, expected, "{method} {path}");
    }
    untouched(&seller);
}

#[test]
fn what_is_not_http() {
    let seller = Seller::open();
    let long = [b"GET /".as_slice(), &vec![b'a'; 1 << 20], b" HTTP/1.1\r\n\r\n"].concat();
    let many = "X: y\r\n".repeat(500);
    let many = format!("GET /v1/offerings HTTP/1.1\r\n{many}\r\n");
    let cases: [&[u8]; 7] = [
        b"\0\0\0\0\r\n\r\n",
        b"hello\r\n\r\n",
        // The beginning of TLS, and of HTTP/2.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/orders HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        &long,
        many.as_bytes(),
    ];
    for bytes in cases {
        let found = raw(seller.address, bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        // Without a word is fine; where there is one, it is the client who is wrong.
        assert!(found.is_none_or(|answer| (400..=431).contains(&answer.status)), "{shown}");
    }
    untouched(&seller);
}

#[test]
fn offerings_come_in_pages() {
    let seller = Seller::open();
    let mut made: Vec<String> = (0..5).map(|_| seller.offer(1)).collect();
    made.sort();
    let page = |query: &str| {
        let answer = ask(seller.address, "GET", &format!("/v1/offerings{query}"), b"");
        assert_eq!(answer.status, 200, "{query}");
        let hash = |offering| privatix_plugin_api::json::hash(offering).expect("a hash");
        let list: Vec<String> =
            answer.body["offerings"].as_array().expect("a list").iter().map(hash).collect();
        (list, answer.body["next"].as_str().map(str::to_owned))
    };
    assert_eq!(page(""), (made.clone(), None));
    assert_eq!(page("?limit=5"), (made.clone(), None));
    assert_eq!(page("?limit=2"), (made[..2].to_vec(), Some(made[1].clone())));
    assert_eq!(
        page(&format!("?limit=2&after={}", made[1])),
        (made[2..4].to_vec(), Some(made[3].clone()))
    );
    assert_eq!(page(&format!("?limit=2&after={}", made[3])), (made[4..].to_vec(), None));
    assert_eq!(page(&format!("?after={}", made[4])), (Vec::new(), None));
    assert_eq!(page("?limit=0").0.len(), 1);
    assert_eq!(page("?of=a+newer+version").0.len(), 5);
    for query in ["?limit=x", "?limit=-1", "?limit=99999999999"] {
        let found = ask(seller.address, "GET", &format!("/v1/offerings{query}"), b"").word();
        assert_eq!(found, "400 BadRequest", "{query}");
    }
}

#[test]
fn many_idle_connections_keep_nobody_out() {
    const IDLE: usize = 500;
    let seller = Seller::configured("[exchange]\nconnections_per_address = 512\n");
    let idle: Vec<_> = (0..IDLE).map(|_| connect(seller.address)).collect();
    untouched(&seller);
    drop(idle);
}

#[test]
fn an_address_has_so_many_requests_a_minute() {
    const LIMIT: usize = 20;
    let seller = Seller::configured(&format!("[exchange]\nrequests_per_minute = {LIMIT}\n"));
    let ask = |path: &str| ask(seller.address, "GET", path, b"").word();
    // Also requests for nothing count, and those made at once.
    let mut found: Vec<String> = thread::scope(|scope| {
        let asked: Vec<_> = (0..LIMIT + 5)
            .map(|number| scope.spawn(move || ask(["/v1/offerings", "/x"][number % 2])))
            .collect();
        asked.into_iter().map(|asked| asked.join().expect("answered")).collect()
    });
    found.sort();
    let refused = found.iter().filter(|word| *word == "429 TooManyRequests").count();
    assert_eq!(refused, 5, "{found:?}");
    assert_eq!(ask("/v1/offerings"), "429 TooManyRequests");
    // The operator has another way in.
    let orders: Vec<OrderView> = seller.node.get("/v1/orders").expect("listed");
    assert_eq!(orders, []);
}
