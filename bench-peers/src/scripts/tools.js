export function echo(args) {
  return args.value;
}

export function order(args) {
  let subtotal = 0;
  const by_category = {};
  for (const item of args.items) {
    let line = item.quantity * item.price_cents;
    if (item.quantity >= 10) {
      line -= Math.floor((line * 5) / 100);
    }
    subtotal += line;
    by_category[item.category] = (by_category[item.category] ?? 0) + line;
  }
  const discount = Math.floor((subtotal * args.discount_percent) / 100);
  const tax = Math.floor(((subtotal - discount) * args.tax_percent) / 100);
  return {
    subtotal_cents: subtotal,
    discount_cents: discount,
    tax_cents: tax,
    total_cents: subtotal - discount + tax,
    by_category,
  };
}

function fibonacci(n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

export function fib(args) {
  return fibonacci(args.n);
}

export async function wait(args) {
  return await kv_get(args.key);
}
