//! The examples of the contract, each with the schema that it is an example of.

use serde_json::Value;

use super::{Contract, escape, ndjson, sse_data};

/// An example in the contract, and the JSON pointer of the schema that it is an example of.
#[derive(Debug)]
pub struct Example {
    /// JSON pointer of the example.
    pub at: String,
    /// JSON pointer of its schema.
    pub schema: String,
    /// The example.
    pub value: Value,
}

impl Contract {
    /// Every example of the document that belongs to a schema.
    pub fn examples(&self) -> Vec<Example> {
        let mut found = Vec::new();
        self.collect_examples(String::new(), self.document, &mut found);
        found
    }

    fn collect_examples(&self, at: String, value: &'static Value, found: &mut Vec<Example>) {
        match value {
            Value::Object(map) => {
                let is_schema = at.starts_with("/components/schemas/");
                if let (true, Some(Value::Array(list))) = (is_schema, map.get("examples")) {
                    found.extend(list.iter().enumerate().map(|(i, value)| Example {
                        at: format!("{at}/examples/{i}"),
                        schema: at.clone(),
                        value: value.clone(),
                    }));
                }
                if map.contains_key("schema") {
                    found.extend(self.examples_beside_schema(&at, value));
                }
                for (key, inner) in map
                    .iter()
                    .filter(|(k, _)| !matches!(k.as_str(), "example" | "examples"))
                {
                    self.collect_examples(format!("{at}/{}", escape(key)), inner, found);
                }
            }
            Value::Array(list) => {
                for (i, inner) in list.iter().enumerate() {
                    self.collect_examples(format!("{at}/{i}"), inner, found);
                }
            }
            _ => {}
        }
    }

    /// Of a media type, a parameter or a header; of a stream, line by line.
    fn examples_beside_schema(&self, at: &str, holder: &'static Value) -> Vec<Example> {
        let mut values = Vec::new();
        if let Some(value) = holder.get("example") {
            values.push((format!("{at}/example"), value.clone()));
        }
        if let Some(Value::Object(named)) = holder.get("examples") {
            for (name, example) in named {
                let at = format!("{at}/examples/{}", escape(name));
                let (at, example) = self.resolve(at, example);
                values.push((at, example["value"].clone()));
            }
        }
        let line = format!("{at}/x-littlebox-line-schema");
        let mut found = Vec::new();
        for (example_at, value) in values {
            if let (Some(_), Value::String(text)) = (self.document.pointer(&line), &value) {
                let lines = if at.ends_with("event-stream") {
                    sse_data(text)
                } else {
                    ndjson(text)
                };
                found.extend(lines.into_iter().map(|text| {
                    Example {
                        at: example_at.clone(),
                        schema: line.clone(),
                        value: serde_json::from_str(&text)
                            .unwrap_or_else(|e| panic!("{example_at}: {e}: {text}")),
                    }
                }));
            } else {
                found.push(Example {
                    at: example_at,
                    schema: format!("{at}/schema"),
                    value,
                });
            }
        }
        found
    }
}
