//! The samples of `docs/api.md` are answered as it says.

use std::{fs, path::Path};

use reqwest::Method;
use serde_json::Value;

use crate::support::{Answer, Host};

/// A sample: its line, what is asked, and what must come back.
struct Sample {
    line: usize,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    status: u16,
    part: Value,
}

fn samples() -> Vec<Sample> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let text = fs::read_to_string(file).expect("docs/api.md is there");
    let mut lines = text.lines().enumerate();
    let mut all = Vec::new();
    while let Some((number, line)) = lines.next() {
        if line == "```http" {
            let block: Vec<_> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            all.push(sample(number + 1, &block));
        }
    }
    all
}

fn sample(line: usize, block: &[&str]) -> Sample {
    let (method, path) = block[0].split_once(' ').expect("a method and a path");
    let blank = block.iter().position(|line| line.is_empty()).expect("headers end");
    let headers = block[1..blank].iter().map(|line| line.split_once(": ").expect("a header"));
    let status = block.iter().rposition(|line| line.len() == 3 && line.parse::<u16>().is_ok()).expect("a status");
    Sample {
        line,
        method: method.parse().expect("a method"),
        path: path.to_owned(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: block[blank..status].join("\n").trim().to_owned(),
        status: block[status].parse().expect("a status"),
        part: serde_json::from_str(&block[status + 1..].join("\n")).unwrap_or(Value::Null),
    }
}

/// Whether everything in `part` is in `whole`; lists by their beginnings.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| holds(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() >= part.len() && whole.iter().zip(part).all(|(whole, part)| holds(whole, part))
        }
        (whole, part) => whole == part,
    }
}

#[tokio::test]
async fn every_sample_is_answered_as_it_says() {
    let host = Host::start().await;
    let all = samples();
    assert!(all.len() > 10, "is the fence still called http?");
    for Sample { line, method, path, headers, body, status, part } in all {
        let mut asked = host.bare(method, &path);
        for (name, value) in headers {
            let value = value.replace("$TENANT", &host.acme).replace("$OPERATOR", &host.operator);
            asked = asked.header(name, value.replace("$ADMIN", &host.admin));
        }
        if !body.is_empty() {
            asked = asked.body(body);
        }
        let answer = Answer::of(asked).await;
        assert_eq!(answer.status, status, "docs/api.md:{line}: {answer:#?}");
        assert!(holds(&answer.body, &part), "docs/api.md:{line}: {part} is not in {answer:#?}");
    }
    host.stop().await.unwrap();
}
