SELECT
  range AS id,
  'ticket ' || range || CASE WHEN range < {{ var('changed') }} THEN ', changed' ELSE '' END AS body,
  '{{ var("product") }}' AS product
FROM range({{ var('first') }}, {{ var('last') }})
