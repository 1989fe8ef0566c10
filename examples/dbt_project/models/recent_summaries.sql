SELECT a.id, a.year, a.president, r.outcome, r.content AS summary, r.error
FROM {{ ref('recent_addresses') }} a
JOIN ({{ answers_of(ref('recent_submitted')) }}) r ON r.custom_id = a.id::VARCHAR
