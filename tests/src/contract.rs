//! `api.yaml` as something that can be asked: is this response (and the request that led to it)
//! what the contract says?
//!
//! With `LITTLEBOX_CONTRACT_SEEN` set to a directory, each process notes there which statuses of
//! which operations it met, one line `METHOD PATH STATUS` each.

mod examples;
mod fields;

use std::collections::{BTreeSet, HashMap};
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use jsonschema::{Draft, Registry, Validator};
use serde_json::{Value, json};

pub use examples::Example;

use crate::http::Head;

/// The contract, as it stands in the repository.
pub const TEXT: &str = include_str!("../../api.yaml");

/// A name for the document, against which references are resolved.
const URI: &str = "urn:littlebox:api";

/// The methods that a path item may have (OpenAPI 3.1, Path Item Object).
const METHODS: [&str; 8] = [
    "get", "put", "post", "delete", "options", "head", "patch", "trace",
];

static CONTRACT: LazyLock<Contract> = LazyLock::new(Contract::load);

/// The parsed contract.
pub struct Contract {
    document: &'static Value,
    registry: &'static Registry<'static>,
    /// By JSON pointer of the schema; compiled when first needed.
    validators: Mutex<HashMap<String, Arc<Validator>>>,
    seen: Mutex<BTreeSet<Seen>>,
}

/// A status of an operation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// In upper case.
    pub method: String,
    /// With its parameters in braces.
    pub path: String,
    /// HTTP status.
    pub status: u16,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.method, self.path, self.status)
    }
}

impl Contract {
    /// The one contract of this process.
    pub fn get() -> &'static Self {
        &CONTRACT
    }

    fn load() -> Self {
        let document: Value = serde_saphyr::from_str(TEXT).expect("api.yaml is YAML");
        let document: &'static Value = Box::leak(Box::new(document));
        let registry = Registry::new()
            .add(URI, document)
            .and_then(jsonschema::RegistryBuilder::prepare)
            .expect("api.yaml can be referred to");
        Self {
            document,
            registry: Box::leak(Box::new(registry)),
            validators: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    /// The whole document.
    pub fn document(&self) -> &'static Value {
        self.document
    }

    /// Every operation: method in upper case and path.
    pub fn operations(&self) -> BTreeSet<(String, String)> {
        let mut operations = BTreeSet::new();
        for (path, item) in object(&self.document["paths"]) {
            for method in METHODS.iter().filter(|m| item.get(**m).is_some()) {
                operations.insert((method.to_uppercase(), path.clone()));
            }
        }
        operations
    }

    /// Every status that an operation documents.
    pub fn documented(&self) -> BTreeSet<Seen> {
        let mut all = BTreeSet::new();
        for (method, path) in self.operations() {
            let operation = &self.document["paths"][&path][method.to_lowercase()];
            for status in object(&operation["responses"]).map(|(status, _)| status) {
                all.insert(Seen {
                    method: method.clone(),
                    path: path.clone(),
                    status: status.parse().expect("statuses are numbers"),
                });
            }
        }
        all
    }

    /// The statuses that passed [`Contract::check`] in this process so far.
    pub fn seen(&self) -> BTreeSet<Seen> {
        lock(&self.seen).clone()
    }

    /// Holds a whole response against the contract. `path` is without its query.
    ///
    /// # Errors
    /// What the response has that the contract does not say, or the other way round.
    pub fn check(&self, method: &str, path: &str, head: &Head, body: &[u8]) -> Result<(), String> {
        if !head.headers.iter().any(|(name, _)| name == "x-request-id") {
            return Err("the header x-request-id is missing".into());
        }
        let Some((template, item)) = self.path_item(path) else {
            return self.check_outside(head, body, 404, "not_found");
        };
        // HEAD is answered wherever GET is, with the same head.
        let asked = if method == "HEAD" {
            "get"
        } else {
            &method.to_lowercase()
        };
        let pointer = pointer(&["paths", template, asked]);
        let Some(operation) = item.get(asked) else {
            if head.status == 405 && head.header("allow").is_none() {
                return Err("405 without the header Allow".into());
            }
            return self.check_outside(head, body, 405, "method_not_allowed");
        };
        let status = head.status.to_string();
        let Some(response) = operation["responses"].get(&status) else {
            return Err(format!(
                "{method} {template} does not document the status {status}"
            ));
        };
        let pointer = format!("{pointer}/responses/{status}");
        let (pointer, response) = self.resolve(pointer, response);
        self.check_headers(&pointer, response, head)?;
        if method != "HEAD" {
            self.check_content(&pointer, response, head, body)?;
        }
        self.note(method, template, head.status);
        Ok(())
    }

    /// Holds the JSON body of a request that was accepted against the contract.
    ///
    /// # Errors
    /// What the daemon accepted although the contract forbids it.
    pub fn check_request(&self, method: &str, path: &str, body: &[u8]) -> Result<(), String> {
        let Some((template, _)) = self.path_item(path) else {
            return Ok(());
        };
        let pointer = pointer(&[
            "paths",
            template,
            &method.to_lowercase(),
            "requestBody",
            "content",
            "application/json",
            "schema",
        ]);
        if body.is_empty() || self.document.pointer(&pointer).is_none() {
            return Ok(());
        }
        let value: Value = serde_json::from_slice(body)
            .map_err(|e| format!("a body that is no JSON was accepted: {e}"))?;
        self.validate(&pointer, &value)
            .map_err(|e| format!("a body that the contract forbids was accepted: {e}"))
    }

    /// Validates a value against the schema at a JSON pointer of the document.
    ///
    /// # Errors
    /// Every violation, by its place in the value.
    pub fn validate(&self, schema: &str, value: &Value) -> Result<(), String> {
        let validator = self.validator(schema);
        let errors: Vec<String> = validator
            .iter_errors(value)
            .map(|e| format!("at '{}': {e}", e.instance_path()))
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors.join("; "))
        }
    }

    /// As [`Contract::validate`], and every field must be documented.
    ///
    /// # Errors
    /// Every violation, and every field that the schema does not name.
    pub fn validate_response(&self, schema: &str, value: &Value) -> Result<(), String> {
        self.validate(schema, value)?;
        let rules = self.document.pointer(schema).expect("the schema is there");
        let extra = fields::undocumented(self.document, rules, value);
        if extra.is_empty() {
            return Ok(());
        }
        Err(format!("undocumented: {}", extra.join(", ")))
    }

    /// A path that is not in the document, or a method that its path does not have.
    fn check_outside(
        &self,
        head: &Head,
        body: &[u8],
        status: u16,
        code: &str,
    ) -> Result<(), String> {
        let problem = self.problem(head, body)?;
        let got = (head.status, problem["code"].as_str().unwrap_or_default());
        if got == (status, code) || got == (403, "forbidden") {
            return Ok(());
        }
        Err(format!(
            "not in the contract, and answered with {got:?} instead of {status} {code}"
        ))
    }

    fn check_headers(
        &self,
        pointer: &str,
        response: &'static Value,
        head: &Head,
    ) -> Result<(), String> {
        for (name, header) in object_or_empty(&response["headers"]) {
            let at = format!("{pointer}/headers/{}", escape(name));
            let (at, header) = self.resolve(at, header);
            match head.header(&name.to_lowercase()) {
                None if header["required"] == json!(true) => {
                    return Err(format!("the header {name} is missing"));
                }
                None => {}
                Some(value) => self
                    .validate(&format!("{at}/schema"), &json!(value))
                    .map_err(|e| format!("the header {name}: {e}"))?,
            }
        }
        Ok(())
    }

    fn check_content(
        &self,
        pointer: &str,
        response: &'static Value,
        head: &Head,
        body: &[u8],
    ) -> Result<(), String> {
        let Some(content) = response.get("content") else {
            if head.status == 101 || body.is_empty() {
                return Ok(());
            }
            return Err(format!(
                "a body of {} bytes where there is none",
                body.len()
            ));
        };
        let media = head
            .content_type()
            .ok_or("the header Content-Type is missing")?;
        if content.get(media).is_none() {
            return Err(format!("the media type {media} is not documented"));
        }
        let at = format!("{pointer}/content/{}", escape(media));
        match media {
            "application/problem+json" => {
                let problem = self.problem(head, body)?;
                let codes = response["x-littlebox-codes"]
                    .as_array()
                    .expect("problems list their codes");
                if codes.contains(&problem["code"]) {
                    return Ok(());
                }
                Err(format!(
                    "the code {} is not documented for this status",
                    problem["code"]
                ))
            }
            "application/json" => {
                let value = serde_json::from_slice(body).map_err(|e| format!("no JSON: {e}"))?;
                self.validate_response(&format!("{at}/schema"), &value)
            }
            "application/x-ndjson" => self.check_lines(&at, ndjson(&text(body)?)),
            "text/event-stream" => self.check_lines(&at, sse_data(&text(body)?)),
            _ => Ok(()),
        }
    }

    fn check_lines(&self, at: &str, lines: Vec<String>) -> Result<(), String> {
        for line in lines {
            let value = serde_json::from_str(&line).map_err(|e| format!("no JSON: {e}: {line}"))?;
            self.validate_response(&format!("{at}/x-littlebox-line-schema"), &value)
                .map_err(|e| format!("{e}: {line}"))?;
        }
        Ok(())
    }

    /// A problem document that agrees with itself and with its response.
    fn problem(&self, head: &Head, body: &[u8]) -> Result<Value, String> {
        if head.content_type() != Some("application/problem+json") {
            return Err(format!("{} without a problem document", head.status));
        }
        let value: Value = serde_json::from_slice(body).map_err(|e| format!("no JSON: {e}"))?;
        self.validate_response("/components/schemas/Problem", &value)?;
        let code = value["code"].as_str().unwrap_or_default();
        if value["status"] != json!(head.status) {
            return Err(format!(
                "a problem of the status {} in a response {}",
                value["status"], head.status
            ));
        }
        if value["type"] != json!(format!("urn:littlebox:problem:{code}")) {
            return Err(format!("the type {} of the code {code}", value["type"]));
        }
        if value.get("instance").is_none() {
            return Err("a problem without its request's id".into());
        }
        Ok(value)
    }

    /// The path item that fits; one without parameters before one with.
    fn path_item(&self, path: &str) -> Option<(&'static String, &'static Value)> {
        let fits = |template: &str| {
            let (a, b) = (template.split('/'), path.split('/'));
            a.clone().count() == b.clone().count()
                && a.zip(b)
                    .all(|(t, p)| t == p || (t.starts_with('{') && !p.is_empty()))
        };
        object(&self.document["paths"])
            .filter(|(template, _)| fits(template))
            .min_by_key(|(template, _)| template.matches('{').count())
    }

    /// Follows a reference inside the document.
    fn resolve(&self, at: String, value: &'static Value) -> (String, &'static Value) {
        let Some(reference) = value.get("$ref").and_then(Value::as_str) else {
            return (at, value);
        };
        let target = reference
            .strip_prefix('#')
            .expect("references stay inside the document");
        let value = self
            .document
            .pointer(target)
            .unwrap_or_else(|| panic!("{at}: {target} is not there"));
        self.resolve(target.to_owned(), value)
    }

    fn validator(&self, schema: &str) -> Arc<Validator> {
        let mut validators = lock(&self.validators);
        let compile = || Arc::new(self.compile(schema));
        validators
            .entry(schema.to_owned())
            .or_insert_with(compile)
            .clone()
    }

    fn compile(&self, schema: &str) -> Validator {
        let reference = json!({ "$ref": format!("{URI}#{}", fragment(schema)) });
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_registry(self.registry)
            .should_validate_formats(true)
            .build(&reference)
            .unwrap_or_else(|e| panic!("the schema at {schema}: {e}"))
    }

    fn note(&self, method: &str, template: &str, status: u16) {
        let seen = Seen {
            method: method.to_owned(),
            path: template.to_owned(),
            status,
        };
        let line = format!("{seen}\n");
        if !lock(&self.seen).insert(seen) {
            return;
        }
        let Some(dir) = std::env::var_os("LITTLEBOX_CONTRACT_SEEN") else {
            return;
        };
        let path = std::path::Path::new(&dir).join(std::process::id().to_string());
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut f| f.write_all(line.as_bytes()));
        written.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that failed may have panicked with it; the value is whole all the same.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn object(value: &'static Value) -> impl Iterator<Item = (&'static String, &'static Value)> {
    value.as_object().expect("an object").iter()
}

fn object_or_empty(
    value: &'static Value,
) -> impl Iterator<Item = (&'static String, &'static Value)> {
    value.as_object().into_iter().flatten()
}

fn text(body: &[u8]) -> Result<String, String> {
    String::from_utf8(body.to_vec()).map_err(|e| format!("no UTF-8: {e}"))
}

fn ndjson(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// The data of each server-sent event; an event at the end that has no blank line is not one yet.
fn sse_data(text: &str) -> Vec<String> {
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    let event = |e: &str| {
        let data: Vec<&str> = e.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
        (!data.is_empty()).then(|| data.join("\n"))
    };
    whole.split("\n\n").filter_map(event).collect()
}

/// A JSON pointer (RFC 6901) of these keys.
fn pointer(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("/{}", escape(key))).collect()
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// A JSON pointer as a URI fragment (RFC 6901, section 6).
fn fragment(pointer: &str) -> String {
    crate::http::encode(pointer)
}
