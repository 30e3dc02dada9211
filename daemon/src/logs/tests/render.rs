//! Records as clients see them.

use super::*;

#[test]
fn rendering() {
    let record = |partial, payload: &'static [u8]| Record {
        position: 9,
        time_ns: 1_000_000_001,
        stream: LogStream::Stdout,
        partial,
        payload: Bytes::from_static(payload),
    };
    let mut out = Vec::new();
    render_ndjson(&record(false, b"a\"\n"), &mut out);
    render_ndjson(&record(true, b"\xff"), &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        concat!(
            r#"{"at":"1970-01-01T00:00:01.000000001Z","stream":"stdout","data":"a\"\n","position":9}"#,
            "\n",
            r#"{"at":"1970-01-01T00:00:01.000000001Z","stream":"stdout","data":"/w==","#,
            r#""encoding":"base64","partial":true,"position":9}"#,
            "\n"
        )
    );
    let mut text = TextRenderer::new(true);
    let mut out = Vec::new();
    for record in [record(true, b"a"), record(false, b"b"), record(false, b"")] {
        text.render(&record, &mut out);
    }
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "1970-01-01T00:00:01.000000001Z ab\n1970-01-01T00:00:01.000000001Z \n"
    );
}

#[test]
fn filters() {
    let record = Record {
        position: 0,
        time_ns: 100,
        stream: LogStream::Stderr,
        partial: false,
        payload: Bytes::new(),
    };
    let all = Filter::default();
    assert!(matches(&all, &record));
    assert!(matches(
        &Filter {
            since_ns: Some(100),
            until_ns: Some(100),
            ..all
        },
        &record
    ));
    assert!(!matches(
        &Filter {
            since_ns: Some(101),
            ..all
        },
        &record
    ));
    assert!(!matches(
        &Filter {
            until_ns: Some(99),
            ..all
        },
        &record
    ));
    assert!(
        Filter {
            until_ns: Some(99),
            ..all
        }
        .is_past(&record)
    );
    assert!(!matches(
        &Filter {
            stderr: false,
            ..all
        },
        &record
    ));
    assert!(matches(
        &Filter {
            stdout: false,
            ..all
        },
        &record
    ));
}
