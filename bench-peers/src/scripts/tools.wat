;; The tools by hand: JSON text in at 4096, JSON text out at 65536, `call(tool, length) -> length of the answer`.
;;
;; The reader takes exactly what the tools need: objects, arrays, strings without escapes in what is compared, whole
;; numbers. What a compiler makes of a general JSON library is larger and slower; this is a lower bound.
(module
  (import "host" "kv_get" (func $kv_get (param i32 i32) (result i32)))
  (memory (export "memory") 2)

  (data (i32.const 0) "value")
  (data (i32.const 16) "n")
  (data (i32.const 32) "key")
  (data (i32.const 48) "items")
  (data (i32.const 64) "discount_percent")
  (data (i32.const 96) "tax_percent")
  (data (i32.const 112) "category")
  (data (i32.const 128) "quantity")
  (data (i32.const 144) "price_cents")
  (data (i32.const 256) "{\"subtotal_cents\":")
  (data (i32.const 288) ",\"discount_cents\":")
  (data (i32.const 320) ",\"tax_cents\":")
  (data (i32.const 352) ",\"total_cents\":")
  (data (i32.const 384) ",\"by_category\":{")

  (global $at (mut i32) (i32.const 0))      ;; the reader's place
  (global $out (mut i32) (i32.const 0))     ;; the writer's place
  (global $start (mut i32) (i32.const 0))   ;; the string read last
  (global $length (mut i32) (i32.const 0))
  (global $categories (mut i32) (i32.const 0))

  ;; ---- reading

  (func $peek (result i32)
    (loop $spaces
      (if (i32.le_u (i32.load8_u (global.get $at)) (i32.const 32))
        (then
          (global.set $at (i32.add (global.get $at) (i32.const 1)))
          (br $spaces))))
    (i32.load8_u (global.get $at)))

  (func $step (global.set $at (i32.add (global.get $at) (i32.const 1))))

  (func $expect (param $byte i32)
    (if (i32.ne (call $peek) (local.get $byte)) (then unreachable))
    (call $step))

  ;; Steps over `byte` if it comes next.
  (func $take (param $byte i32) (result i32)
    (if (i32.ne (call $peek) (local.get $byte)) (then (return (i32.const 0))))
    (call $step)
    (i32.const 1))

  (func $number (result i64)
    (local $value i64) (local $negative i32) (local $byte i32)
    (local.set $negative (call $take (i32.const 45)))
    (drop (call $peek))
    (loop $digits
      (local.set $byte (i32.sub (i32.load8_u (global.get $at)) (i32.const 48)))
      (if (i32.lt_u (local.get $byte) (i32.const 10))
        (then
          (local.set $value
            (i64.add (i64.mul (local.get $value) (i64.const 10)) (i64.extend_i32_u (local.get $byte))))
          (call $step)
          (br $digits))))
    (if (result i64) (local.get $negative)
      (then (i64.sub (i64.const 0) (local.get $value)))
      (else (local.get $value))))

  (func $string
    (local $byte i32)
    (call $expect (i32.const 34))
    (global.set $start (global.get $at))
    (block $end
      (loop $bytes
        (local.set $byte (i32.load8_u (global.get $at)))
        (br_if $end (i32.eq (local.get $byte) (i32.const 34)))
        (if (i32.eq (local.get $byte) (i32.const 92)) (then (call $step)))
        (call $step)
        (br $bytes)))
    (global.set $length (i32.sub (global.get $at) (global.get $start)))
    (call $step))

  ;; Steps over any value.
  (func $skip
    (local $depth i32) (local $byte i32)
    (loop $next
      (local.set $byte (call $peek))
      (if (i32.eq (local.get $byte) (i32.const 34))
        (then (call $string))
        (else
          (if (i32.or (i32.eq (local.get $byte) (i32.const 123)) (i32.eq (local.get $byte) (i32.const 91)))
            (then (local.set $depth (i32.add (local.get $depth) (i32.const 1)))))
          (if (i32.or (i32.eq (local.get $byte) (i32.const 125)) (i32.eq (local.get $byte) (i32.const 93)))
            (then
              (if (i32.eqz (local.get $depth)) (then (return)))
              (local.set $depth (i32.sub (local.get $depth) (i32.const 1)))))
          (if (i32.and (i32.eqz (local.get $depth)) (i32.eq (local.get $byte) (i32.const 44))) (then (return)))
          (call $step)))
      (if (local.get $depth) (then (br $next)))
      (local.set $byte (call $peek))
      (br_if $next
        (i32.eqz
          (i32.or (i32.eq (local.get $byte) (i32.const 44))
            (i32.or (i32.eq (local.get $byte) (i32.const 125)) (i32.eq (local.get $byte) (i32.const 93))))))))

  (func $same (param $left i32) (param $right i32) (param $length i32) (result i32)
    (block $no
      (loop $bytes
        (if (i32.eqz (local.get $length)) (then (return (i32.const 1))))
        (local.set $length (i32.sub (local.get $length) (i32.const 1)))
        (br_if $no
          (i32.ne
            (i32.load8_u (i32.add (local.get $left) (local.get $length)))
            (i32.load8_u (i32.add (local.get $right) (local.get $length)))))
        (br $bytes)))
    (i32.const 0))

  ;; Whether the string read last is this one.
  (func $is (param $text i32) (param $length i32) (result i32)
    (if (i32.ne (local.get $length) (global.get $length)) (then (return (i32.const 0))))
    (call $same (local.get $text) (global.get $start) (local.get $length)))

  ;; ---- writing

  (func $put (param $text i32) (param $length i32)
    (memory.copy (global.get $out) (local.get $text) (local.get $length))
    (global.set $out (i32.add (global.get $out) (local.get $length))))

  (func $put_byte (param $byte i32)
    (i32.store8 (global.get $out) (local.get $byte))
    (global.set $out (i32.add (global.get $out) (i32.const 1))))

  (func $put_number (param $value i64)
    (local $end i32)
    (if (i64.lt_s (local.get $value) (i64.const 0))
      (then
        (call $put_byte (i32.const 45))
        (local.set $value (i64.sub (i64.const 0) (local.get $value)))))
    ;; The digits are made from the last to the first, below 2048, and then copied.
    (local.set $end (i32.const 2048))
    (loop $digits
      (local.set $end (i32.sub (local.get $end) (i32.const 1)))
      (i32.store8 (local.get $end)
        (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $value) (i64.const 10)))))
      (local.set $value (i64.div_u (local.get $value) (i64.const 10)))
      (br_if $digits (i64.ne (local.get $value) (i64.const 0))))
    (call $put (local.get $end) (i32.sub (i32.const 2048) (local.get $end))))

  ;; ---- the tools

  ;; Goes to the value under the key; false where the object does not have it.
  (func $find (param $key i32) (param $length i32) (result i32)
    (call $expect (i32.const 123))
    (if (call $take (i32.const 125)) (then (return (i32.const 0))))
    (loop $keys
      (call $string)
      (call $expect (i32.const 58))
      (if (call $is (local.get $key) (local.get $length)) (then (return (i32.const 1))))
      (call $skip)
      (br_if $keys (call $take (i32.const 44))))
    (i32.const 0))

  (func $echo
    (if (i32.eqz (call $find (i32.const 0) (i32.const 5))) (then unreachable))
    (call $put_number (call $number)))

  (func $fibonacci (param $n i64) (result i64)
    (if (result i64) (i64.lt_s (local.get $n) (i64.const 2))
      (then (local.get $n))
      (else
        (i64.add
          (call $fibonacci (i64.sub (local.get $n) (i64.const 1)))
          (call $fibonacci (i64.sub (local.get $n) (i64.const 2)))))))

  (func $fib
    (if (i32.eqz (call $find (i32.const 16) (i32.const 1))) (then unreachable))
    (call $put_number (call $fibonacci (call $number))))

  (func $wait
    (if (i32.eqz (call $find (i32.const 32) (i32.const 3))) (then unreachable))
    (call $string)
    (call $put_number (i64.extend_i32_s (call $kv_get (global.get $start) (global.get $length)))))

  ;; Categories stand at 3072 in 16 bytes each: start, length, sum; at most 64 of them.
  (func $add (param $start i32) (param $length i32) (param $line i64)
    (local $entry i32) (local $end i32)
    (local.set $entry (i32.const 3072))
    (local.set $end (i32.add (i32.const 3072) (i32.mul (global.get $categories) (i32.const 16))))
    (block $found
      (loop $entries
        (if (i32.eq (local.get $entry) (local.get $end))
          (then
            (if (i32.ge_u (global.get $categories) (i32.const 64)) (then unreachable))
            (i32.store (local.get $entry) (local.get $start))
            (i32.store offset=4 (local.get $entry) (local.get $length))
            (i64.store offset=8 (local.get $entry) (i64.const 0))
            (global.set $categories (i32.add (global.get $categories) (i32.const 1)))
            (br $found)))
        (if (i32.eq (i32.load offset=4 (local.get $entry)) (local.get $length))
          (then
            (br_if $found (call $same (i32.load (local.get $entry)) (local.get $start) (local.get $length)))))
        (local.set $entry (i32.add (local.get $entry) (i32.const 16)))
        (br $entries)))
    (i64.store offset=8 (local.get $entry)
      (i64.add (i64.load offset=8 (local.get $entry)) (local.get $line))))

  ;; One item: its line's price.
  (func $item (result i64)
    (local $quantity i64) (local $price i64) (local $line i64) (local $start i32) (local $length i32)
    (call $expect (i32.const 123))
    (loop $keys
      (call $string)
      (call $expect (i32.const 58))
      (block $done
        (if (call $is (i32.const 112) (i32.const 8))
          (then
            (call $string)
            (local.set $start (global.get $start))
            (local.set $length (global.get $length))
            (br $done)))
        (if (call $is (i32.const 128) (i32.const 8))
          (then
            (local.set $quantity (call $number))
            (br $done)))
        (if (call $is (i32.const 144) (i32.const 11))
          (then
            (local.set $price (call $number))
            (br $done)))
        (call $skip))
      (br_if $keys (call $take (i32.const 44))))
    (call $expect (i32.const 125))
    (local.set $line (i64.mul (local.get $quantity) (local.get $price)))
    (if (i64.ge_s (local.get $quantity) (i64.const 10))
      (then
        (local.set $line
          (i64.sub (local.get $line)
            (i64.div_s (i64.mul (local.get $line) (i64.const 5)) (i64.const 100))))))
    (call $add (local.get $start) (local.get $length) (local.get $line))
    (local.get $line))

  (func $order
    (local $subtotal i64) (local $discount i64) (local $tax i64) (local $entry i32) (local $end i32)
    (global.set $categories (i32.const 0))
    (call $expect (i32.const 123))
    (loop $keys
      (call $string)
      (call $expect (i32.const 58))
      (block $done
        (if (call $is (i32.const 48) (i32.const 5))
          (then
            (call $expect (i32.const 91))
            (br_if $done (call $take (i32.const 93)))
            (loop $items
              (local.set $subtotal (i64.add (local.get $subtotal) (call $item)))
              (br_if $items (call $take (i32.const 44))))
            (call $expect (i32.const 93))
            (br $done)))
        (if (call $is (i32.const 64) (i32.const 16))
          (then
            (local.set $discount (call $number))
            (br $done)))
        (if (call $is (i32.const 96) (i32.const 11))
          (then
            (local.set $tax (call $number))
            (br $done)))
        (call $skip))
      (br_if $keys (call $take (i32.const 44))))
    (local.set $discount (i64.div_s (i64.mul (local.get $subtotal) (local.get $discount)) (i64.const 100)))
    (local.set $tax
      (i64.div_s
        (i64.mul (i64.sub (local.get $subtotal) (local.get $discount)) (local.get $tax))
        (i64.const 100)))
    (call $put (i32.const 256) (i32.const 18))
    (call $put_number (local.get $subtotal))
    (call $put (i32.const 288) (i32.const 18))
    (call $put_number (local.get $discount))
    (call $put (i32.const 320) (i32.const 13))
    (call $put_number (local.get $tax))
    (call $put (i32.const 352) (i32.const 15))
    (call $put_number (i64.add (i64.sub (local.get $subtotal) (local.get $discount)) (local.get $tax)))
    (call $put (i32.const 384) (i32.const 16))
    (local.set $entry (i32.const 3072))
    (local.set $end (i32.add (i32.const 3072) (i32.mul (global.get $categories) (i32.const 16))))
    (block $written
      (loop $entries
        (br_if $written (i32.eq (local.get $entry) (local.get $end)))
        (if (i32.ne (local.get $entry) (i32.const 3072)) (then (call $put_byte (i32.const 44))))
        (call $put_byte (i32.const 34))
        (call $put (i32.load (local.get $entry)) (i32.load offset=4 (local.get $entry)))
        (call $put_byte (i32.const 34))
        (call $put_byte (i32.const 58))
        (call $put_number (i64.load offset=8 (local.get $entry)))
        (local.set $entry (i32.add (local.get $entry) (i32.const 16)))
        (br $entries)))
    (call $put_byte (i32.const 125))
    (call $put_byte (i32.const 125)))

  (func (export "call") (param $tool i32) (param $length i32) (result i32)
    (global.set $at (i32.const 4096))
    (global.set $out (i32.const 65536))
    (block $end
      (block $wait
        (block $fib
          (block $order
            (block $echo
              (br_table $echo $order $fib $wait (local.get $tool)))
            (call $echo)
            (br $end))
          (call $order)
          (br $end))
        (call $fib)
        (br $end))
      (call $wait))
    (i32.sub (global.get $out) (i32.const 65536))))
