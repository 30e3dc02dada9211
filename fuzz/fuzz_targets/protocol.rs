//! What travels between daemon and helper: any bytes decode to a message or to an error, and a
//! message survives a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littlebox_protocol::{ExitRecord, First, Framed, FromHelper, Request, ZygoteRequest};
use serde_json::{from_slice, to_vec};

fuzz_target!(|data: &[u8]| {
    let _ = from_slice::<Framed<ZygoteRequest>>(data);
    let _ = from_slice::<ExitRecord>(data);
    if let Ok(first) = from_slice::<First>(data) {
        let bytes = to_vec(&first).expect("a message encodes");
        assert_eq!(
            from_slice::<First>(&bytes).expect("its own encoding decodes"),
            first
        );
    }
    if let Ok(request) = from_slice::<Request>(data) {
        let bytes = to_vec(&request).expect("a message encodes");
        assert_eq!(
            from_slice::<Request>(&bytes).expect("its own encoding decodes"),
            request
        );
    }
    if let Ok(said) = from_slice::<FromHelper>(data) {
        let bytes = to_vec(&said).expect("a message encodes");
        assert_eq!(
            from_slice::<FromHelper>(&bytes).expect("its own encoding decodes"),
            said
        );
    }
});
