//! As much of D-Bus as two calls to systemd need (D-Bus specification, "Message Protocol"): a whole
//! client would be larger than this program.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Message types of the specification.
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// The most bytes of a message that is read.
const LIMIT: usize = 1 << 20;

/// A connection.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
}

/// The value of a property.
#[derive(Debug)]
pub enum Value {
    /// `b`.
    Bool(bool),
    /// `t`.
    Count(u64),
    /// `s`.
    Text(String),
    /// `au`.
    Numbers(Vec<u32>),
}

/// Little-endian marshalling: every value is aligned to its own size.
#[derive(Debug, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        while !self.0.len().is_multiple_of(to) {
            self.0.push(0);
        }
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }

    /// `s` and `o`.
    fn text(&mut self, text: &str) {
        self.u32(length(text.len()));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// `g`.
    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(0));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array: its length in bytes counts from the first element.
    fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        fill(self);
        let bytes = length(self.0.len() - start).to_le_bytes();
        self.0[at..at + 4].copy_from_slice(&bytes);
    }

    fn variant(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => {
                self.signature("b");
                self.u32(u32::from(*value));
            }
            Value::Count(value) => {
                self.signature("t");
                self.u64(*value);
            }
            Value::Text(text) => {
                self.signature("s");
                self.text(text);
            }
            Value::Numbers(numbers) => {
                self.signature("au");
                self.array(4, |writer| numbers.iter().for_each(|n| writer.u32(*n)));
            }
        }
    }

    fn header_field(&mut self, code: u8, kind: &str, text: &str) {
        self.align(8);
        self.0.push(code);
        self.signature(kind);
        if kind == "g" {
            self.signature(text);
        } else {
            self.text(text);
        }
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Bus {
    /// Connects as root (`EXTERNAL`).
    pub fn connect(path: &Path) -> Result<Bus, String> {
        let text = |error: io::Error| error.to_string();
        let mut stream = UnixStream::connect(path).map_err(text)?;
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .map_err(text)?;
        // The user id in hexadecimal digits of its decimal ones.
        let uid: String = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|b| format!("{b:02x}")).collect();
        write!(stream, "\0AUTH EXTERNAL {hex}\r\n").map_err(text)?;
        let answer = read_line(&mut stream).map_err(text)?;
        if !answer.starts_with("OK ") {
            return Err(format!("authentication was answered with {answer:?}"));
        }
        stream.write_all(b"BEGIN\r\n").map_err(text)?;
        Ok(Bus { stream, serial: 0 })
    }

    /// `StartTransientUnit` of org.freedesktop.systemd1.Manager(5).
    pub fn start_transient_unit(
        &mut self,
        unit: &str,
        properties: &[(&str, Value)],
    ) -> Result<(), String> {
        let mut body = Writer::default();
        body.text(unit);
        body.text("fail");
        body.array(8, |writer| {
            for (name, value) in properties {
                writer.align(8);
                writer.text(name);
                writer.variant(value);
            }
        });
        body.array(8, |_| {});
        self.call("StartTransientUnit", "ssa(sv)a(sa(sv))", &body.0)
    }

    /// `StopUnit`.
    pub fn stop_unit(&mut self, unit: &str) -> Result<(), String> {
        let mut body = Writer::default();
        body.text(unit);
        body.text("replace");
        self.call("StopUnit", "ss", &body.0)
    }

    fn call(&mut self, member: &str, signature: &str, body: &[u8]) -> Result<(), String> {
        self.serial += 1;
        let message = method_call(self.serial, member, signature, body);
        self.stream
            .write_all(&message)
            .map_err(|error| error.to_string())?;
        loop {
            let message = Message::read(&mut self.stream)?;
            if message.reply_to() != Some(self.serial) {
                continue;
            }
            return match message.kind {
                METHOD_RETURN => Ok(()),
                ERROR => Err(message.text()),
                other => Err(format!("a reply of the unknown type {other}")),
            };
        }
    }
}

fn method_call(serial: u32, member: &str, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut message = Writer(vec![b'l', METHOD_CALL, 0, 1]);
    message.u32(length(body.len()));
    message.u32(serial);
    message.array(8, |writer| {
        writer.header_field(1, "o", "/org/freedesktop/systemd1");
        writer.header_field(2, "s", "org.freedesktop.systemd1.Manager");
        writer.header_field(3, "s", member);
        writer.header_field(6, "s", "org.freedesktop.systemd1");
        writer.header_field(8, "g", signature);
    });
    message.align(8);
    message.0.extend(body);
    message.0
}

/// A message that came.
struct Message {
    kind: u8,
    fields: Vec<u8>,
    body: Vec<u8>,
}

impl Message {
    fn read(stream: &mut UnixStream) -> Result<Message, String> {
        let text = |error: io::Error| error.to_string();
        let mut fixed = [0; 16];
        stream.read_exact(&mut fixed).map_err(text)?;
        if fixed[0] != b'l' {
            return Err("a message that is not little-endian".to_owned());
        }
        let (body, fields) = (word(&fixed, 4), word(&fixed, 12));
        if body > LIMIT || fields > LIMIT {
            return Err("a message that is too long".to_owned());
        }
        let mut header = vec![0; fields.next_multiple_of(8)];
        stream.read_exact(&mut header).map_err(text)?;
        header.truncate(fields);
        let mut content = vec![0; body];
        stream.read_exact(&mut content).map_err(text)?;
        Ok(Message {
            kind: fixed[1],
            fields: header,
            body: content,
        })
    }

    /// Header field 5, a `u`, wherever it stands: code, signature, value, each field aligned to 8.
    fn reply_to(&self) -> Option<u32> {
        self.fields
            .chunks(8)
            .find(|field| field.starts_with(&[5, 1, b'u', 0]) && field.len() == 8)
            .map(|field| u32::from_le_bytes([field[4], field[5], field[6], field[7]]))
    }

    /// The first string of an error.
    fn text(&self) -> String {
        let text = self.body.get(4..).unwrap_or_default();
        let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        String::from_utf8_lossy(&text[..end]).into_owned()
    }
}

fn word(bytes: &[u8], at: usize) -> usize {
    let word = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    usize::try_from(u32::from_le_bytes(word)).unwrap_or(usize::MAX)
}

fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") && line.len() < 512 {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Takes one call and answers it; what was asked.
    fn serve(listener: &UnixListener, kind: u8, words: &str) -> Vec<u8> {
        let (mut stream, _) = listener.accept().expect("a caller");
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the first byte");
        assert!(
            read_line(&mut stream)
                .expect("AUTH")
                .starts_with("AUTH EXTERNAL ")
        );
        stream.write_all(b"OK 0123\r\n").expect("written");
        assert_eq!(read_line(&mut stream).expect("BEGIN"), "BEGIN");
        let asked = Message::read(&mut stream).expect("a call");
        let mut body = Writer::default();
        body.text(words);
        let mut answer = Writer(vec![b'l', kind, 0, 1]);
        answer.u32(length(body.0.len()));
        answer.u32(1);
        answer.array(8, |writer| {
            writer.0.extend([5, 1, b'u', 0]);
            writer.u32(1);
            writer.header_field(8, "g", "s");
        });
        answer.align(8);
        answer.0.extend(body.0);
        stream.write_all(&answer.0).expect("written");
        [asked.fields, asked.body].concat()
    }

    fn exchange(kind: u8, words: &'static str) -> (Vec<u8>, Result<(), String>) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("private");
        let listener = UnixListener::bind(&path).expect("a socket");
        let server = std::thread::spawn(move || serve(&listener, kind, words));
        let mut bus = Bus::connect(&path).expect("connected");
        let properties = [
            ("Delegate", Value::Bool(true)),
            ("PIDs", Value::Numbers(vec![7])),
            ("TasksMax", Value::Count(u64::MAX)),
        ];
        let result = bus.start_transient_unit("a-b.scope", &properties);
        (server.join().expect("served"), result)
    }

    #[test]
    fn a_call_is_marshalled_and_its_answer_understood() {
        let (asked, result) = exchange(METHOD_RETURN, "/job/1");
        assert_eq!(result, Ok(()));
        let has = |part: &[u8]| asked.windows(part.len()).any(|window| window == part);
        assert!(has(b"StartTransientUnit\0") && has(b"a-b.scope\0") && has(b"fail\0"));
        // The variant `b` true: signature, padding to 4, value.
        assert!(has(b"TasksMax\0\x01t\0") && has(&[0xff; 8]));
        assert!(has(b"Delegate\0\x01b\0\x01\0\0\0") || has(b"Delegate\0\x01b\0\0\x01\0\0\0"));
    }

    #[test]
    fn an_error_is_told_in_its_own_words() {
        let (_, result) = exchange(ERROR, "Unit a-b.scope already exists.");
        assert_eq!(result, Err("Unit a-b.scope already exists.".to_owned()));
    }
}
