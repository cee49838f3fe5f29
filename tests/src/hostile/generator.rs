//! Programs made up at random from Rhai's vocabulary: small ones, with hostile constants, that mostly compile.
//!
//! A program is known by its seed: the same seed always gives the same text, on every machine.

use std::fmt::Write as _;

/// Numbers at which arithmetic, indices and sizes break.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "63",
    "64",
    "65",
    "-64",
    "255",
    "1000",
    "99999",
    "100001",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "0.0",
    "-0.0",
    "0.1",
    "1.5",
    "1e308",
    "1e-308",
    "(0.0/0.0)",
    "(1.0/0.0)",
    "parse_decimal(\"0.1\")",
    "parse_decimal(\"79228162514264337593543950335\")",
];

/// Texts with characters of one to four bytes, and what parsers trip over.
const TEXTS: &[&str] = &[
    r#""""#,
    r#""x""#,
    r#""abc""#,
    r#""ß🦠e\u0301""#,
    r#""\u0000""#,
    r#""[[[[""#,
    r#""{\"a\":[1,{}]}""#,
    r#""(a+)+$""#,
    r#""%Y-%m-%d""#,
    r#""UTC""#,
    r#""2024-02-30""#,
    r#""$1$2${x}""#,
    r#""..""#,
    r#""eval""#,
    r#""f0""#,
    "'x'",
    "'ß'",
];

/// What can be called on a value, with how many arguments.
#[rustfmt::skip]
const METHODS: &[(&str, usize)] = &[
    ("len", 0), ("is_empty", 0), ("abs", 0), ("sign", 0), ("to_string", 0), ("to_debug", 0), ("to_int", 0),
    ("to_float", 0), ("to_decimal", 0), ("push", 1), ("pop", 0), ("shift", 0), ("append", 1), ("insert", 2),
    ("pad", 2), ("truncate", 1), ("chop", 1), ("reverse", 0), ("splice", 2), ("splice", 3), ("extract", 1),
    ("extract", 2), ("split", 0), ("split", 1), ("split", 2), ("split_rev", 2), ("for_each", 1), ("map", 1),
    ("filter", 1), ("contains", 1), ("index_of", 1), ("index_of", 2), ("find", 1), ("find_map", 1), ("some", 1),
    ("all", 1), ("dedup", 0), ("dedup", 1), ("reduce", 1), ("reduce", 2), ("reduce_rev", 2), ("zip", 2),
    ("sort", 0), ("sort", 1), ("sort_desc", 0), ("order", 0), ("order_by", 1), ("order_desc", 0), ("drain", 1),
    ("drain", 2), ("retain", 1), ("retain", 2), ("get", 1), ("set", 2), ("remove", 1), ("clear", 0), ("keys", 0),
    ("values", 0), ("mixin", 1), ("fill_with", 1), ("to_json", 0), ("to_upper", 0), ("make_lower", 0), ("trim", 0),
    ("crop", 1), ("crop", 2), ("sub_string", 1), ("sub_string", 2), ("replace", 2), ("starts_with", 1),
    ("chars", 2), ("bytes", 0), ("to_chars", 0), ("to_blob", 0), ("as_string", 0), ("to_array", 0),
    ("parse_le_int", 2), ("write_le", 3), ("write_utf8", 3), ("get_bit", 1), ("set_bit", 2), ("get_bits", 2),
    ("set_bits", 3), ("bits", 2), ("to_hex", 0), ("call", 0), ("call", 1), ("call", 2), ("tag", 0), ("set_tag", 1),
    ("take", 0), ("min", 1), ("max", 1), ("round", 0), ("round", 1), ("floor", 0), ("sqrt", 0), ("exp", 0),
    ("ln", 0), ("sin", 0), ("is_nan", 0), ("name", 0),
];

/// What can be called by itself.
#[rustfmt::skip]
const FUNCTIONS: &[(&str, usize)] = &[
    ("f0", 1), ("f1", 2), ("type_of", 1), ("is_shared", 1), ("print", 1), ("debug", 1), ("to_json", 1),
    ("to_json", 2), ("parse_json", 1), ("regex_is_match", 2), ("regex_find_all", 2), ("regex_captures", 2),
    ("regex_replace", 3), ("regex_split", 2), ("sha256", 1), ("base64_encode", 1), ("base64_decode", 1),
    ("hex_decode", 1), ("url_decode", 1), ("date_parse", 1), ("date_parts", 2), ("date_format", 3), ("date_add", 4),
    ("date_from_parts", 2), ("round_to", 2), ("float_text", 1), ("parse_int", 1), ("parse_int", 2),
    ("parse_float", 1), ("parse_decimal", 1), ("blob", 1), ("blob", 2), ("range", 2), ("range", 3), ("Fn", 1),
    ("log", 1), ("log", 2), ("config", 0), ("fail", 1), ("fail", 2), ("exit", 1), ("take", 1), ("asset_text", 1),
    ("timezone_exists", 1),
];

const OPERATORS: &[&str] = &[
    "+", "-", "*", "/", "%", "**", "<<", ">>", "&", "|", "^", "==", "!=", "<", "<=", ">", ">=", "??", "in", "!in",
    "..", "..=",
];

const ASSIGNMENTS: &[&str] = &["=", "+=", "-=", "*=", "/=", "%=", "**=", "<<=", ">>=", "&=", "|=", "^="];

const VARIABLES: &[&str] = &["a", "b", "c", "d"];

/// Inside of functions there are only their parameters.
const PARAMETERS: &[&str] = &["x", "x"];

/// The program of this seed.
#[must_use]
pub fn program(seed: u64) -> String {
    let mut maker = Maker { state: seed, out: String::new(), budget: 60, names: PARAMETERS };
    maker.program();
    maker.out
}

struct Maker {
    state: u64,
    out: String,
    /// Expressions and statements that may still be begun, so that every program ends.
    budget: usize,
    /// The variables that there are.
    names: &'static [&'static str],
}

impl Maker {
    /// The next number of SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("a small number")
    }

    fn one_of(&mut self, all: &'static [&'static str]) -> &'static str {
        all[self.below(all.len())]
    }

    fn put(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn program(&mut self) {
        self.put("fn f0(x) {\n");
        self.statements(2, 1);
        self.put("x\n}\nfn f1(x, y) {\n");
        self.statements(2, 1);
        self.put("y\n}\n");
        self.names = VARIABLES;
        for name in VARIABLES {
            let _ = write!(self.out, "let {name} = ");
            self.start();
            self.put(";\n");
        }
        self.budget = 20 + self.below(60);
        let count = 2 + self.below(8);
        self.statements(count, 0);
        self.expression(3);
    }

    /// The first value of a variable: something that is large, shared, nested or empty.
    fn start(&mut self) {
        match self.below(12) {
            0 => self.put("[]"),
            1 => self.put("#{}"),
            2 => self.put("[1, 2, 3]"),
            3 => self.put("#{ a: 1, b: [2], c: #{ d: 3 } }"),
            4 => self.put("{ let t = \"ab\"; while t.len() < 300000 { t += t; } t }"),
            5 => self.put("{ let t = []; t.pad(50000, 7); t }"),
            6 => self.put("{ let t = []; for i in 0..2000 { t = [t]; } t }"),
            7 => self.put("{ let t = #{}; for i in 0..500 { t[`k${i}`] = [i]; } t }"),
            8 => self.put("|x| x"),
            9 => self.put("blob(5000, 200)"),
            10 => self.put(
                "{ let t = \"k\"; while t.len() < 200000 { t += t; } let m = #{}; for i in 0..8 { m[t + i] = i; } m }",
            ),
            _ => self.literal(),
        }
    }

    fn statements(&mut self, count: usize, depth: usize) {
        for _ in 0..count {
            // Most values do not fit most functions: a program that ended there would attack nothing.
            let is_caught = self.below(4) > 0;
            self.put(if is_caught { "try { " } else { "" });
            self.statement(depth);
            self.put(if is_caught { " } catch { }\n" } else { "\n" });
        }
    }

    fn block(&mut self, depth: usize) {
        self.put("{ ");
        let count = 1 + self.below(3);
        self.statements(count, depth + 1);
        self.put("}");
    }

    fn variable(&mut self) {
        let name = self.one_of(self.names);
        self.put(name);
    }

    fn statement(&mut self, depth: usize) {
        self.budget = self.budget.saturating_sub(1);
        let kind = if depth > 3 || self.budget == 0 { 0 } else { self.below(14) };
        match kind {
            0..=2 => self.expression(2),
            3 | 4 => {
                self.variable();
                let by = self.one_of(ASSIGNMENTS);
                let _ = write!(self.out, " {by} ");
                self.expression(3);
            }
            5 => {
                self.variable();
                self.put("[");
                self.expression(1);
                self.put("] = ");
                self.expression(2);
            }
            6 => {
                self.put("if ");
                self.condition();
                self.put(" ");
                self.block(depth);
            }
            7 => {
                self.put("for i in ");
                self.series();
                self.put(" ");
                self.block(depth);
            }
            8 => {
                self.put("loop ");
                self.block(depth);
            }
            9 => {
                self.put("while ");
                self.condition();
                self.put(" ");
                self.block(depth);
            }
            10 | 11 => {
                self.put("try ");
                self.block(depth);
                self.put(" catch (e) ");
                self.block(depth);
            }
            12 => {
                self.put("switch ");
                self.expression(1);
                self.put(" { 1 => ");
                self.expression(1);
                self.put(", _ => ");
                self.expression(1);
                self.put(" }");
            }
            _ => {
                let _ = write!(self.out, "let ");
                self.variable();
                self.put(" = ");
                self.expression(3);
            }
        }
        self.put(";");
    }

    /// What must be a bool already when it is compiled.
    fn condition(&mut self) {
        self.put("(");
        self.expression(1);
        let comparison = ["==", "!=", "<", ">=", "in"][self.below(5)];
        let _ = write!(self.out, ") {comparison} ");
        self.variable();
    }

    /// What `for` can go through.
    fn series(&mut self) {
        match self.below(3) {
            0 => {
                self.put("0..");
                self.expression(1);
            }
            1 => {
                self.put("[");
                self.expression(1);
                self.put("]");
            }
            _ => self.variable(),
        }
    }

    fn literal(&mut self) {
        let text = if self.below(2) == 0 { self.one_of(NUMBERS) } else { self.one_of(TEXTS) };
        self.put(text);
    }

    fn arguments(&mut self, count: usize, depth: usize) {
        self.put("(");
        for place in 0..count {
            if place > 0 {
                self.put(", ");
            }
            self.expression(depth);
        }
        self.put(")");
    }

    fn expression(&mut self, depth: usize) {
        self.budget = self.budget.saturating_sub(1);
        if depth == 0 || self.budget == 0 {
            return match self.below(3) {
                0 => {
                    let text = self.one_of(NUMBERS);
                    self.put(text);
                }
                1 => {
                    let text = self.one_of(TEXTS);
                    self.put(text);
                }
                _ => self.variable(),
            };
        }
        match self.below(16) {
            0..=4 => {
                let (name, count) = METHODS[self.below(METHODS.len())];
                self.variable();
                let _ = write!(self.out, ".{name}");
                self.arguments(count, depth - 1);
            }
            5..=7 => {
                let (name, count) = FUNCTIONS[self.below(FUNCTIONS.len())];
                self.put(name);
                self.arguments(count, depth - 1);
            }
            8 | 9 => {
                let operator = self.one_of(OPERATORS);
                self.put("(");
                self.expression(depth - 1);
                let _ = write!(self.out, " {operator} ");
                self.expression(depth - 1);
                self.put(")");
            }
            10 => {
                self.variable();
                self.put("[");
                self.expression(depth - 1);
                self.put("]");
            }
            11 => {
                self.put("[");
                self.expression(depth - 1);
                self.put(", ");
                self.expression(depth - 1);
                self.put("]");
            }
            12 => {
                self.put("#{ k: ");
                self.expression(depth - 1);
                self.put(", a: ");
                self.expression(depth - 1);
                self.put(" }");
            }
            13 | 14 => {
                let parameters = ["||", "|x|", "|x, y|"][self.below(3)];
                self.put(parameters);
                self.put(" { ");
                self.expression(depth - 1);
                self.put(" }");
            }
            _ => {
                self.put("`${");
                self.expression(depth - 1);
                self.put("}`");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_gives_the_same_program() {
        assert_eq!(program(7), program(7));
        assert_ne!(program(7), program(8));
    }
}
