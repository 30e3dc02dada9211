//! Every response a test sees is held against the contract, errors included, and so is every JSON
//! body that the daemon accepts.

use crate::contract::Contract;
use crate::http::{Head, Request};

/// Fails the test when the response is not what `api.yaml` says.
#[track_caller]
pub fn response(method: &str, path: &str, head: &Head, body: &[u8]) {
    let path = path.split('?').next().unwrap_or(path);
    if let Err(e) = check(method, path, head, body) {
        let body = String::from_utf8_lossy(&body[..body.len().min(2000)]);
        panic!(
            "{method} {path} broke the contract: {e}\n{} {:?}\n{body}",
            head.status, head.headers
        );
    }
}

fn check(method: &str, path: &str, head: &Head, body: &[u8]) -> Result<(), String> {
    Contract::get().check(method, path, head, body)
}

/// Fails the test when the daemon accepted a JSON body that the contract forbids.
#[track_caller]
pub fn request(request: &Request, status: u16) {
    let json = request
        .headers
        .iter()
        .any(|(name, value)| name == "content-type" && value == "application/json");
    let (true, true, Some(body)) = (json, (200..300).contains(&status), &request.body) else {
        return;
    };
    let path = request.path.split('?').next().unwrap_or(&request.path);
    let method = request.method.name();
    if let Err(e) = Contract::get().check_request(method, path, body) {
        let body = String::from_utf8_lossy(&body[..body.len().min(2000)]);
        panic!("{method} {path} broke the contract: {e}\n{body}");
    }
}

/// Fails the test when a text frame of the server is not what the contract says.
#[track_caller]
pub fn frame(text: &str) {
    let value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let checked = Contract::get().validate_response("/components/schemas/ServerControl", &value);
    checked.unwrap_or_else(|e| panic!("a frame broke the contract: {e}\n{text}"));
}

/// Fails the test when the answer that opens a WebSocket is not what the contract says.
#[track_caller]
pub fn upgrade<T>(path: &str, answer: &tungstenite::http::Response<T>) {
    let headers = answer.headers().iter();
    let head = Head {
        status: answer.status().as_u16(),
        headers: headers
            .map(|(n, v)| {
                (
                    n.to_string(),
                    String::from_utf8_lossy(v.as_bytes()).into_owned(),
                )
            })
            .collect(),
    };
    response("GET", path, &head, b"");
}
