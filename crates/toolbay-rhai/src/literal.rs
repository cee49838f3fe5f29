//! Values written out in a script, read off its syntax tree.
//!
//! A plugin's declaration is data. Reading it off the tree runs nothing, keeps the order in which the author wrote a
//! map's keys, and can point at the line that is wrong.

use std::collections::BTreeMap;

use rhai::{Expr, Position};
use serde_json::{Map, Number, Value};

/// Why an expression is no written-out value.
#[derive(Debug)]
pub(crate) struct NotLiteral {
    /// Where.
    pub(crate) position: Position,
    /// What is wrong and what to write.
    pub(crate) problem: String,
}

/// The value that `expression` spells: literals, arrays, maps, `constants` by name, and `+` between texts.
///
/// # Errors
/// [`NotLiteral`] at the first part that is computed otherwise.
pub(crate) fn fold(expression: &Expr, constants: &BTreeMap<String, Value>) -> Result<Value, NotLiteral> {
    let position = expression.position();
    let refuse = |problem: &str| Err(NotLiteral { position, problem: problem.into() });
    match expression {
        Expr::Unit(_) => Ok(Value::Null),
        Expr::BoolConstant(value, _) => Ok(Value::Bool(*value)),
        Expr::IntegerConstant(number, _) => Ok(Value::from(*number)),
        Expr::FloatConstant(number, _) => match Number::from_f64(**number) {
            Some(number) => Ok(Value::Number(number)),
            None => refuse("this number is not finite"),
        },
        Expr::CharConstant(character, _) => Ok(Value::String(character.to_string())),
        Expr::StringConstant(text, _) => Ok(Value::String(text.to_string())),
        Expr::InterpolatedString(parts, _) => {
            let mut text = String::new();
            for part in parts {
                match fold(part, constants)? {
                    Value::String(part) => text.push_str(&part),
                    Value::Number(part) => text.push_str(&part.to_string()),
                    _ => return refuse("only texts and numbers can be put into a text here"),
                }
            }
            Ok(Value::String(text))
        }
        Expr::Array(items, _) => {
            items.iter().map(|item| fold(item, constants)).collect::<Result<_, _>>().map(Value::Array)
        }
        Expr::Map(map, _) => {
            let mut entries = Map::with_capacity(map.0.len());
            for (key, value) in &map.0 {
                entries.insert(key.name.to_string(), fold(value, constants)?);
            }
            Ok(Value::Object(entries))
        }
        Expr::Variable(variable, ..) if variable.2.is_empty() => match constants.get(variable.1.as_str()) {
            Some(value) => Ok(value.clone()),
            None => refuse(&format!("`{}` is no constant that is written out above", variable.1)),
        },
        Expr::FnCall(call, _) if call.name == "+" && call.args.len() == 2 => {
            let mut text = String::new();
            for part in &call.args {
                let Value::String(part) = fold(part, constants)? else {
                    return refuse("`+` can only join texts here");
                };
                text.push_str(&part);
            }
            Ok(Value::String(text))
        }
        Expr::FnCall(call, _) => refuse(&format!(
            "`{}` is computed, and a declaration must be written out: use literals, earlier constants and + between texts",
            call.name
        )),
        _ => refuse(
            "this is computed, and a declaration must be written out: use literals, earlier constants and + between texts",
        ),
    }
}
