//! The protocol as tables, and with bytes that no OpenVPN would send.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Vec<Message> {
    let mut parser = Parser::default();
    let lines = text.split('\n').map(|line| parser.line(line.as_bytes()));
    lines.filter_map(|message| message.expect("readable")).collect()
}

fn event(kind: ClientEventKind, client: u64, key: u64, variables: &[(&str, &str)]) -> Message {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Message::Client(ClientEvent {
        kind,
        client,
        key,
        variables: variables.iter().map(own).collect(),
    })
}

#[test]
fn lines() {
    let text = |text: &str| text.to_owned();
    for (line, expected) in [
        (
            "SUCCESS: client-kill command succeeded",
            Message::Success(text("client-kill command succeeded")),
        ),
        ("ERROR: unknown command", Message::Failure(text("unknown command"))),
        (">HOLD:Waiting for hold release:0", Message::Hold),
        (">FATAL:no tun", Message::Fatal(text("no tun"))),
        (">BYTECOUNT:1,2", Message::Bytes(Bytes { incoming: 1, outgoing: 2 })),
        (
            ">BYTECOUNT_CLI:7,1,2\r",
            Message::ClientBytes { client: 7, bytes: Bytes { incoming: 1, outgoing: 2 } },
        ),
        (
            ">STATE:1795624069,CONNECTED,SUCCESS,10.77.0.2,192.0.2.1,1194,,",
            Message::State {
                name: text("CONNECTED"),
                detail: text("SUCCESS"),
                address: Some(Ipv4Addr::new(10, 77, 0, 2)),
            },
        ),
        (
            ">STATE:1,RECONNECTING,ping-restart,,,,,",
            Message::State {
                name: text("RECONNECTING"),
                detail: text("ping-restart"),
                address: None,
            },
        ),
        (">PASSWORD:Need 'Auth' username/password", Message::NeedPassword(text("Auth"))),
        (">PASSWORD:Verification Failed: 'Auth'", Message::Refused(text("'Auth'"))),
        (
            ">CLIENT:ADDRESS,3,10.77.0.2,1",
            Message::Address { client: 3, address: Ipv4Addr::new(10, 77, 0, 2) },
        ),
        // What is not as it should be is of no consequence.
        (">BYTECOUNT:1", Message::Other(text(">BYTECOUNT:1"))),
        (">BYTECOUNT:-1,2", Message::Other(text(">BYTECOUNT:-1,2"))),
        (">BYTECOUNT_CLI:1,2", Message::Other(text(">BYTECOUNT_CLI:1,2"))),
        (">CLIENT:ADDRESS,3,10.77.0.0/16,0", Message::Other(text("ADDRESS,3,10.77.0.0/16,0"))),
        (">CLIENT:CONNECT,x,1", Message::Other(text("CONNECT,x,1"))),
        (">PASSWORD:Auth-Token:x", Message::Other(text(">PASSWORD:Auth-Token:x"))),
        (
            ">INFO:OpenVPN Management Interface",
            Message::Other(text(">INFO:OpenVPN Management Interface")),
        ),
        ("END", Message::Other(text("END"))),
    ] {
        assert_eq!(read(line), [expected], "{line}");
    }
    assert_eq!(read("\n\r\n"), []);
}

#[test]
fn an_event_is_complete_with_its_last_variable() {
    let connect = ">CLIENT:CONNECT,0,1\n>CLIENT:ENV,username=a=b\n>CLIENT:ENV,password=\n\
                   >CLIENT:ENV,username=c\n>CLIENT:ENV,flag\n>CLIENT:ENV,END";
    let expected = [("username", "a=b"), ("password", ""), ("flag", "")];
    assert_eq!(read(connect), [event(ClientEventKind::Connect, 0, 1, &expected)]);
    // Other lines may come in between; variables of an unreadable event are nobody's.
    assert_eq!(
        read(
            ">CLIENT:ESTABLISHED,4\n>BYTECOUNT:1,2\n>CLIENT:ENV,END\n>CLIENT:ENV,a=b\n>CLIENT:ENV,END"
        ),
        [
            Message::Bytes(Bytes { incoming: 1, outgoing: 2 }),
            event(ClientEventKind::Established, 4, 0, &[])
        ]
    );
    assert_eq!(
        read(">CLIENT:CR_RESPONSE,1,2,eA==\n>CLIENT:ENV,END"),
        [event(ClientEventKind::Other, 0, 0, &[])]
    );
}

#[test]
fn a_leaving_client_says_what_it_used() {
    let left = read(
        ">CLIENT:DISCONNECT,0\n>CLIENT:ENV,bytes_sent=6396\n>CLIENT:ENV,bytes_received=9611\n>CLIENT:ENV,END",
    );
    let [Message::Client(event)] = &*left else { panic!("{left:?}") };
    assert_eq!(event.bytes(), Some(Bytes { incoming: 9611, outgoing: 6396 }));
    assert_eq!(
        load_stats("nclients=0,bytesin=6260,bytesout=9719"),
        Some(Bytes { incoming: 6260, outgoing: 9719 })
    );
    assert_eq!(load_stats("nclients=0,bytesin=6260"), None);
}

#[test]
fn a_password_is_not_shown() {
    let message = read(">CLIENT:CONNECT,0,1\n>CLIENT:ENV,password=hunter2\n>CLIENT:ENV,END");
    assert!(!format!("{message:?}").contains("hunter2"));
}

#[test]
fn bytes_that_are_no_text_and_too_much_of_them() {
    let mut parser = Parser::default();
    assert_eq!(parser.line(b">CLIENT:CONNECT,0,1"), Ok(None));
    assert_eq!(parser.line(b">CLIENT:ENV,username=\xff\xfe"), Ok(None));
    let message = parser.line(b">CLIENT:ENV,END");
    let expected = event(ClientEventKind::Connect, 0, 1, &[("username", "\u{fffd}\u{fffd}")]);
    assert_eq!(message, Ok(Some(expected)));
    assert_eq!(parser.line(&vec![b'x'; MAX_LINE + 1]), Err(ProtocolError::LongLine));
    assert_eq!(parser.line(b">CLIENT:CONNECT,0,1"), Ok(None));
    let outcome = (0..=MAX_VARIABLES).map(|n| parser.line(format!(">CLIENT:ENV,v{n}=").as_bytes()));
    assert_eq!(outcome.last(), Some(Err(ProtocolError::TooManyVariables)));
}

#[test]
fn parameters_are_quoted() {
    for (text, expected) in [
        ("", r#""""#),
        ("a b", r#""a b""#),
        (r#"a"b\c"#, r#""a\"b\\c""#),
        ("a\nsignal SIGTERM\r\0", r#""asignal SIGTERM""#),
    ] {
        assert_eq!(quoted(text), expected);
    }
}

#[test]
fn command_that_openvpn_would_split_is_refused() {
    let long = |count: usize| format!("password \"Auth\" {}", quoted(&"x".repeat(count)));
    let smuggled = format!("{} signal SIGHUP #", "x".repeat(1008));
    for (command, taken) in [
        ("pid".to_owned(), true),
        (long(900), true),
        (long(1008), false),
        (format!("password \"Auth\" {}", quoted(&smuggled)), false),
        // Quoting doubles it.
        (format!("password \"Auth\" {}", quoted(&"\"".repeat(600))), false),
        (
            format!("client-deny 1 1 {} {}", quoted(&"y".repeat(600)), quoted(&"y".repeat(600))),
            false,
        ),
        ("pid\nsignal SIGHUP".to_owned(), false),
        ("pid\rsignal SIGHUP".to_owned(), false),
        ("pid\0signal SIGHUP".to_owned(), false),
        ("x".repeat(999), true),
        ("x".repeat(1000), false),
    ] {
        match command_line(&command) {
            Ok(line) => {
                assert!(taken, "{} bytes were taken", command.len());
                assert!(line.ends_with('\n') && line.len() < 1024, "{line}");
            }
            Err(error) => {
                assert!(!taken, "{error}");
                assert!(!error.to_string().contains("xxx\""), "it shows a secret: {error}");
            }
        }
    }
}

#[test]
fn credential_that_openvpn_would_cut_is_none() {
    for (text, is) in [
        ("", false),
        ("secret", true),
        ("with space \"and\" more", true),
        ("a\nb", false),
        ("a\tb", false),
        ("\u{7f}", false),
    ] {
        assert_eq!(is_credential(text), is, "{text:?}");
    }
    assert!(is_credential(&"x".repeat(127)) && !is_credential(&"x".repeat(128)));
    assert!(!is_credential(&"ü".repeat(64)));
}

proptest! {
    #[test]
    fn no_bytes_do_harm(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..40)) {
        let mut parser = Parser::default();
        for line in lines {
            prop_assert!(parser.line(&line).is_ok());
        }
    }

    #[test]
    fn nothing_near_the_protocol_does_harm(
        lines in prop::collection::vec("(>CLIENT:|>BYTECOUNT:|>STATE:|>PASSWORD:|)(CONNECT|ENV|ADDRESS|Need ')?[,='0-9A-Za-z.]{0,20}", 0..40)
    ) {
        let mut parser = Parser::default();
        for line in lines {
            prop_assert!(parser.line(line.as_bytes()).is_ok());
        }
    }

    #[test]
    fn a_quoted_parameter_is_one_parameter_on_one_line(text in any::<String>()) {
        let quoted = quoted(&text);
        let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let mut escaped = false;
        for c in inner.expect("quoted").chars() {
            prop_assert!(!matches!(c, '\n' | '\r' | '\0'));
            prop_assert!(escaped || c != '"');
            escaped = !escaped && c == '\\';
        }
        prop_assert!(!escaped);
    }
}
