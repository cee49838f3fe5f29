use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
use std::time::Instant;
use rhai::{*, grain::*};
fn engine(limits: bool) -> (Engine, Arc<AtomicU64>) {
    let mut e = Engine::new();
    let n = Arc::new(AtomicU64::new(0));
    if limits {
        e.set_max_operations(200_000).set_max_call_levels(32).set_max_string_size(10_000).set_max_array_size(1_000).set_max_map_size(1_000).set_max_variables(50).set_max_expr_depths(64, 64);
        let c = n.clone();
        e.on_progress(move |_| if c.fetch_add(1, Ordering::Relaxed) > 1_000_000 { Some(Dynamic::UNIT) } else { None });
    }
    (e, n)
}
fn main() {
    let scripts: &[(&str,&str)] = &[
      ("closure", "let s = 0; [1,2,3].for_each(|x| { s += x; }); s"),
      ("capture", "let s = 1; let f = |x| x + s; s = 5; f.call(3)"),
      ("curry", "fn a(x,y){x*10+y} let f = Fn(\"a\").curry(4); f.call(2)"),
      ("this", "fn inc(){ this += 1; } let x = 3; x.inc(); x"),
      ("interp", "let x = #{a:[1,2.5,\"q\"]}; `v=${x.a[2]} ${x.a.len()}`"),
      ("try", "let r = (); try { throw #{k: 3}; } catch(e) { r = e.k; } r"),
      ("try2", "fn f(){ try { return 5; } catch { return 6; } } f()"),
      ("nested idx", "let m = #{a: [#{b: 1}]}; m.a[0].b += 41; m.a[0][\"b\"]"),
      ("elvis", "let m = #{}; m?.x?.y ?? 7"),
      ("switch", "fn f(x){ switch x { 1 => \"one\", 2..=5 => \"few\", _ => \"some\" } } [f(1), f(4), f(200), f(50)]"),
      ("loops", "let s=0; for (x, i) in [5,6,7] { if i == 1 { continue; } s += x*i; } let y = loop { s += 1; if s > 20 { break s; } }; y"),
      ("while", "let i = 0; while i < 10 { i += 1; } do { i -= 3; } while i > 0; i"),
      ("sort", "let a = [3,1,2]; a.sort(|x, y| y - x); a"),
      ("mapfilter", "[1,2,3,4].filter(|x| x % 2 == 0).map(|x| x * x).reduce(|s, x| s + x, 0)"),
      ("strings", "let s = \"héllo\"; s[1] = 'e'; s += \"!\"; s.to_upper().split(\"L\")"),
      ("decimal", "let d = parse_decimal(\"0.1\") + parse_decimal(\"0.2\"); d.to_string()"),
      ("overflow", "9223372036854775807 + 1"),
      ("div0", "1 / 0"),
      ("undefined var", "let a = 1; b"),
      ("undefined fn", "foo(1)"),
      ("bad index", "[1,2][9]"),
      ("type err", "#{} + 1"),
      ("const", "const X = 3; let f = |m| m; X += f.call(1);"),
      ("shadow", "let x = 1; { let x = 2; x += 1; } let x = x + 10; x"),
      ("range slice", "let a = [1,2,3,4,5]; a[1..3] = [9]; a"),
      ("bitslice", "let x = 0; x[3..=5] = 7; x"),
      ("blob", "let b = blob(4, 0x42); b[1] = 0; b.len() + b[2]"),
      ("is_shared", "let x = 1; let f = || x; is_shared(x)"),
      ("fnptr this", "let o = #{n: 2, f: |k| this.n * k}; o.f(21)"),
      ("global const in fn", "const Y = 7; fn g() { global::Y } g()"),
      ("eval", "let x = 4; eval(\"x + 1\")"),
      ("recursion deep", "fn r(n){ if n == 0 { 0 } else { 1 + r(n-1) } } r(30)"),
      ("LIM recursion", "fn r(n){ r(n+1) } r(0)"),
      ("LIM loop", "loop { }"),
      ("LIM loop2", "let x = 0; while true { x += 1; }"),
      ("LIM for_each", "let n = 0; let a = []; for i in 0..900 { a.push(i); } loop { a.for_each(|x| { n += 1; }); }"),
      ("LIM sort cb", "let a=[]; for i in 0..900 { a.push(i); } loop { a.sort(|x,y| y-x); }"),
      ("LIM catch loop", "loop { try { loop {} } catch { } }"),
      ("LIM string", "let s = \"x\"; loop { s += s; }"),
      ("LIM array", "let a = []; loop { a.push(1); }"),
      ("LIM array lit", "let a = [1]; loop { a += a; }"),
      ("LIM map", "let m = #{}; let i = 0; loop { m[\"k\" + i] = i; i += 1; }"),
      ("LIM nested", "let a = []; loop { a = [a, a]; }"),
      ("LIM interp", "let s = \"xxxxxxxxxxxxxxxxxxxxxxxx\"; loop { s = `${s}${s}`; }"),
      ("LIM vars", &*Box::leak((0..60).map(|i| format!("let v{i} = {i};")).collect::<String>().into_boxed_str())),
    ];
    for (name, src) in scripts {
        let (e, n) = engine(true);
        let ast = match e.compile(src) { Ok(a) => a, Err(x) => { println!("{name}: compile {x}"); continue } };
        let show = |r: Result<Dynamic, Box<EvalAltResult>>| match r { Ok(v) => format!("{v:?}"), Err(x) => format!("ERR {x}") };
        n.store(0, Ordering::Relaxed);
        let t = Instant::now();
        let a = show(e.eval_ast::<Dynamic>(&ast)); let (na, ta) = (n.swap(0, Ordering::Relaxed), t.elapsed());
        let p = Compiler::new().compile(&ast).into_shared();
        let mut out = vec![];
        let t = Instant::now();
        out.push(("eval", show(Vm::new(&e).eval(&p)), n.swap(0, Ordering::Relaxed), t.elapsed()));
        let t = Instant::now();
        out.push(("callbacks", show(Vm::new(&e).eval_with_callbacks(&mut Scope::new(), &p)), n.swap(0, Ordering::Relaxed), t.elapsed()));
        if !src.contains("fn ") && let Ok(ast) = e.compile(format!("fn main() {{ {src} }}")) {
            let t = Instant::now();
            let x = show(e.call_fn::<Dynamic>(&mut Scope::new(), &ast, "main", ()));
            println!("  tree in call_fn: {} {:?}", x.chars().take(60).collect::<String>(), t.elapsed());
            let p = Compiler::new().compile(&ast);
            n.store(0, Ordering::Relaxed);
            let t = Instant::now();
            out.push(("call_fn", show(Vm::new(&e).call_fn::<Dynamic>(&mut Scope::new(), &p, "main", ())), n.swap(0, Ordering::Relaxed), t.elapsed()));
        }
        println!("{name}: tree {na} {ta:?} {}", a.chars().take(90).collect::<String>());
        for (how, v, n, t) in out { println!("    {} {how} {n} {t:?} {}", if v == a { "same" } else { "DIFF" }, if v == a { String::new() } else { v.chars().take(130).collect() }); }
    }
    // script part alone, without conversions
    let (e, _) = engine(false);
    let src = include_str!("../src/scripts/tools.rhai").to_owned();
    let ast = e.compile(&src).unwrap();
    let p = Compiler::new().compile(&ast);
    let items = format!("[{}]", (0..50).map(|i| format!("#{{sku:\"S{i}\",category:\"c{}\",quantity:{},price_cents:{}}}", i % 5, 1 + i * 3 % 13, 199 + i * 137)).collect::<Vec<_>>().join(","));
    let args: Dynamic = e.eval(&format!("#{{discount_percent:7,tax_percent:19,items:{items}}}")).unwrap();
    let o = || CallFnOptions::new().eval_ast(false);
    for round in 0..3 {
        let med = |mut v: Vec<f64>| { v.sort_by(f64::total_cmp); v[v.len()/2] };
        let a = med((0..2000).map(|_| { let x = args.clone(); let t = Instant::now(); let _: Dynamic = e.call_fn_with_options(o(), &mut Scope::new(), &ast, "order", (x,)).unwrap(); t.elapsed().as_secs_f64()*1e6 }).collect());
        let b = med((0..2000).map(|_| { let x = args.clone(); let t = Instant::now(); let _: Dynamic = Vm::new(&e).call_fn_with_options(o(), &mut Scope::new(), &p, "order", (x,)).unwrap(); t.elapsed().as_secs_f64()*1e6 }).collect());
        println!("round {round}: order script only, tree {a:.1} µs, vm {b:.1} µs");
    }
}
