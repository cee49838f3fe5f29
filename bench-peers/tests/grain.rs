//! Why Toolbay does not run scripts on Rhai's bytecode machine: a function that the host calls by name cannot hand
//! closures to Rhai's own functions, and sorting fails without a word. When one of these tests fails, look again.

use rhai::{
    Array, Dynamic, Engine, Scope,
    grain::{Compiler, Vm},
};

const SCRIPT: &str =
    "fn sorted() { let a = [3, 1, 2]; a.sort(|x, y| y - x); a }  fn even() { [1, 2].filter(|x| x % 2 == 0) }";

/// What the function `name` gives on the tree walker and on the bytecode machine.
fn on_both(name: &str) -> [Result<Vec<i64>, String>; 2] {
    let engine = Engine::new();
    let ast = engine.compile(SCRIPT).expect("the script is sound");
    let program = Compiler::new().compile(&ast);
    assert_eq!(program.residual_count(), 0, "nothing is left to the tree walker");
    let tree = engine.call_fn::<Array>(&mut Scope::new(), &ast, name, ());
    let machine = Vm::new(&engine).call_fn::<Array>(&mut Scope::new(), &program, name, ());
    let whole = |array: Array| array.iter().filter_map(|item: &Dynamic| item.as_int().ok()).collect();
    [tree, machine].map(|result| result.map(whole).map_err(|error| error.to_string()))
}

#[test]
fn the_bytecode_machine_leaves_an_array_unsorted_and_says_nothing() {
    assert_eq!(on_both("sorted"), [Ok(vec![3, 2, 1]), Ok(vec![3, 1, 2])]);
}

#[test]
fn the_bytecode_machine_does_not_find_a_closure_that_a_filter_calls() {
    let [tree, machine] = on_both("even");
    assert_eq!(tree, Ok(vec![2]));
    assert!(machine.is_err_and(|error| error.starts_with("Function not found: anon$")));
}
