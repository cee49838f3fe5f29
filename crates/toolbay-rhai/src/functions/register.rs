//! Short ways to register a function under the name and with the parameters that authors read.

use rhai::{FuncRegistration, Module, RhaiNativeFunc, Variant};

/// Registers a function that changes none of its arguments.
pub(crate) fn add<A: 'static, const N: usize, const X: bool, R: Variant + Clone>(
    module: &mut Module,
    name: &str,
    parameters: [&str; N],
    function: impl RhaiNativeFunc<A, N, X, R, true> + Send + Sync + 'static,
) {
    register(module, name, parameters, true, function);
}

/// Registers a method that changes its first argument, so that it cannot be called on a constant.
pub(super) fn add_mut<A: 'static, const N: usize, const X: bool, R: Variant + Clone>(
    module: &mut Module,
    name: &str,
    parameters: [&str; N],
    function: impl RhaiNativeFunc<A, N, X, R, true> + Send + Sync + 'static,
) {
    register(module, name, parameters, false, function);
}

fn register<A: 'static, const N: usize, const X: bool, R: Variant + Clone>(
    module: &mut Module,
    name: &str,
    parameters: [&str; N],
    is_pure: bool,
    function: impl RhaiNativeFunc<A, N, X, R, true> + Send + Sync + 'static,
) {
    FuncRegistration::new(name)
        .in_internal_namespace()
        .with_purity(is_pure)
        .with_volatility(true)
        .with_params_info(parameters)
        .set_into_module(module, function);
}
