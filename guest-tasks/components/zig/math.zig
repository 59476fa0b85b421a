export fn gcd(a0: i64, b0: i64) i64 {
    var a = a0;
    var b = b0;
    while (b != 0) {
        const rest = @rem(a, b);
        a = b;
        b = rest;
    }
    return a;
}

export fn divide(a: i32, b: i32) i32 {
    return @divTrunc(a, b);
}
