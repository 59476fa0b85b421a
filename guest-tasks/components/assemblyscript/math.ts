export function gcd(a: i64, b: i64): i64 {
  while (b != 0) {
    const rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

export function divide(a: i32, b: i32): i32 {
  return a / b;
}
