//! Fields that a response has and the contract does not: a client may ignore them, but the
//! contract is to be true, so a test may not.

use serde_json::{Map, Value};

/// The places in `value` that no schema at or below `schema` documents.
pub(super) fn undocumented(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    look(document, &[schema], value, String::new(), &mut found);
    found
}

/// `schemas` are alternatives or parts of one; a field is documented when any of them has it.
fn look(document: &Value, schemas: &[&Value], value: &Value, at: String, found: &mut Vec<String>) {
    let mut parts = Vec::new();
    for schema in schemas {
        flatten(document, schema, &mut parts);
    }
    match value {
        Value::Object(map) => look_object(document, &parts, map, &at, found),
        Value::Array(list) => {
            let items: Vec<&Value> = parts.iter().filter_map(|p| p.get("items")).collect();
            for (i, item) in list.iter().enumerate() {
                look(document, &items, item, format!("{at}/{i}"), found);
            }
        }
        _ => {}
    }
}

fn look_object(
    document: &Value,
    parts: &[&Value],
    map: &Map<String, Value>,
    at: &str,
    found: &mut Vec<String>,
) {
    let named: Vec<&Value> = parts.iter().filter_map(|p| p.get("properties")).collect();
    let others = parts.iter().filter_map(|p| p.get("additionalProperties"));
    let others: Vec<&Value> = others.filter(|schema| schema.is_object()).collect();
    if named.is_empty() && others.is_empty() {
        // A free form: any JSON.
        return;
    }
    for (key, inner) in map {
        let mut schemas: Vec<&Value> = named.iter().filter_map(|p| p.get(key)).collect();
        if schemas.is_empty() {
            schemas.clone_from(&others);
        }
        let at = format!("{at}/{key}");
        if schemas.is_empty() {
            found.push(at);
        } else {
            look(document, &schemas, inner, at, found);
        }
    }
}

/// A schema, what it refers to, its parts and alternatives.
fn flatten<'a>(document: &'a Value, schema: &'a Value, parts: &mut Vec<&'a Value>) {
    parts.push(schema);
    let reference = schema.get("$ref").and_then(Value::as_str);
    if let Some(target) = reference.and_then(|r| document.pointer(r.trim_start_matches('#'))) {
        flatten(document, target, parts);
    }
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for part in schema
            .get(keyword)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            flatten(document, part, parts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::undocumented;
    use serde_json::json;

    #[test]
    fn a_field_is_documented_by_any_part_and_by_nothing_else() {
        let document = json!({"base": {"properties": {"id": {}, "labels": {"additionalProperties": {"type": "string"}}}}});
        let schema = json!({"allOf": [{"$ref": "#/base"}, {"properties": {"list": {"items": {"properties": {"n": {}}}}, "free": {}}}]});
        let value = json!({
            "id": 1, "labels": {"any": "x"}, "free": {"any": {"thing": 1}},
            "list": [{"n": 1}, {"n": 1, "m": 2}], "extra": 3,
        });
        assert_eq!(
            undocumented(&document, &schema, &value),
            ["/extra", "/list/1/m"]
        );
    }
}
