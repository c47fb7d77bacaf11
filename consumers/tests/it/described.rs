//! The description of the admin API, and whether what a process answers is as it says.

use std::{collections::BTreeSet, fs, path::Path};

use reqwest::Method;
use serde_json::Value;

use crate::{
    door::{Door, jwt},
    issuer::{Issuer, Key},
};

/// assets/openapi.json.
pub(crate) struct Description(Value);

const METHODS: [Method; 6] = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];

impl Description {
    pub(crate) fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/openapi.json");
        Self(serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap())
    }

    /// Sees that an answer is one of those that the operation is said to give.
    pub(crate) fn admits(&self, method: &Method, path: &str, status: u16, body: &Value) {
        let templates = self.0["paths"].as_object().unwrap();
        let template = templates.iter().find(|(template, _)| fits(template, path));
        let (_, operations) = template.unwrap_or_else(|| panic!("{path} is not described"));
        let answer = &operations[method.as_str().to_lowercase()]["responses"][status.to_string()];
        assert!(answer.is_object(), "{method} {path}: {status} is not described: {body}");
        let content = self.resolved(answer)["content"].as_object().unwrap();
        let wrong = self.wrong(&content.values().next().unwrap()["schema"], body, "");
        assert!(wrong.is_none(), "{method} {path}: {status}: {}\n{body:#}", wrong.unwrap());
    }

    fn resolved<'d>(&'d self, one: &'d Value) -> &'d Value {
        match one["$ref"].as_str() {
            Some(at) => self.0.pointer(at.trim_start_matches('#')).unwrap(),
            None => one,
        }
    }

    /// What of a value is not as its schema says: as much of JSON Schema as the description uses.
    fn wrong(&self, schema: &Value, value: &Value, at: &str) -> Option<String> {
        let schema = self.resolved(schema);
        for keyword in schema.as_object().unwrap().keys() {
            let known = [
                "type",
                "properties",
                "required",
                "additionalProperties",
                "items",
                "enum",
                "const",
                "anyOf",
                "minimum",
                "maximum",
                "pattern",
                "format",
                "description",
                "default",
            ];
            assert!(known.contains(&keyword.as_str()), "{at}: the test does not know {keyword}");
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let none = choices.iter().all(|choice| self.wrong(choice, value, at).is_some());
            return none.then(|| format!("{at}: {value} is none of anyOf"));
        }
        if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value))
            || schema.get("const").is_some_and(|only| only != value)
        {
            return Some(format!("{at}: {value} is not one of {schema}"));
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        let found: &[&str] = match value {
            Value::Null => &["null"],
            Value::Bool(_) => &["boolean"],
            Value::Number(number) if number.is_f64() => &["number"],
            Value::Number(_) => &["integer", "number"],
            Value::String(_) => &["string"],
            Value::Array(_) => &["array"],
            Value::Object(_) => &["object"],
        };
        if !types.is_empty() && !types.iter().any(|expected| found.contains(expected)) {
            return Some(format!("{at}: {value}, expected {types:?}"));
        }
        if schema["minimum"].as_f64().zip(value.as_f64()).is_some_and(|(least, number)| number < least) {
            return Some(format!("{at}: {value} is too small"));
        }
        if let (Some("date-time"), Some(text)) = (schema["format"].as_str(), value.as_str())
            && !(text.len() == 24 && text.ends_with('Z'))
        {
            return Some(format!("{at}: {text} is no time"));
        }
        let elements = value.as_array().into_iter().flatten();
        let in_elements = elements.filter_map(|one| self.wrong(schema.get("items")?, one, &format!("{at}[]")));
        let fields = value.as_object().into_iter().flatten();
        let in_fields = fields.filter_map(|(name, one)| {
            let at = format!("{at}.{name}");
            match (schema["properties"].get(name), &schema["additionalProperties"]) {
                (Some(known), _) => self.wrong(known, one, &at),
                (None, Value::Bool(false)) => Some(format!("{at} is not described")),
                (None, rest @ Value::Object(_)) => self.wrong(rest, one, &at),
                (None, _) => None,
            }
        });
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let missing = required.filter(|name| value.is_object() && value.get(name).is_none());
        in_elements.chain(in_fields).chain(missing.map(|name| format!("{at}.{name} is missing"))).next()
    }
}

/// Whether a path is of a template with `{…}` segments.
fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    let same = |(one, other): (&&str, &&str)| one.starts_with('{') || one == other;
    template.len() == path.len() && template.iter().zip(&path).all(same)
}

#[tokio::test]
async fn the_description_has_every_operation_and_each_but_itself_wants_a_token() {
    let key = Key::p256("ec-1");
    let issuer = Issuer::with(&[&key]).await;
    let door = Door::open("", &jwt(&issuer)).await;
    let served = door.request(Method::GET, "/v1/openapi.json").send().await.unwrap();
    assert_eq!(served.headers()["content-type"], "application/json");
    let description = Description(served.json().await.unwrap());

    // Nothing is routed that is not described.
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/api.rs")).unwrap();
    let routed: BTreeSet<&str> =
        source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let described = description.0["paths"].as_object().unwrap();
    assert_eq!(routed, described.keys().map(String::as_str).collect());

    for (template, operations) in described {
        let path = template.replace("{topic}", "orders").replace("{name}", "funnel");
        for method in METHODS {
            let answer = door.request(method.clone(), &path).send().await.unwrap();
            let (status, content) = (answer.status().as_u16(), answer.headers()["content-type"].clone());
            let expected = match operations.get(method.as_str().to_lowercase()) {
                None => 405,
                Some(operation) if operation["operationId"] == "describe" => 200,
                Some(_) => 401,
            };
            assert_eq!(status, expected, "{method} {path}");
            if status == 401 {
                description.admits(&method, &path, status, &answer.json().await.unwrap());
            } else if status == 405 {
                assert_eq!(content, "application/problem+json", "{method} {path}");
            }
        }
    }
    let elsewhere = door.request(Method::GET, "/v1/secrets").send().await.unwrap();
    assert_eq!(
        (elsewhere.status().as_u16(), elsewhere.headers()["cache-control"].to_str().unwrap()),
        (404, "no-store")
    );

    let reasons: Vec<Value> = millrace_pipeline::reason::Reason::ALL.iter().map(|one| one.code().into()).collect();
    let wanted = &description.0["components"]["schemas"]["ReplayRequest"]["properties"]["reasons"]["items"]["enum"];
    assert_eq!(wanted.as_array().unwrap(), &reasons);
}
