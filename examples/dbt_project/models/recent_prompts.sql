SELECT id::VARCHAR AS custom_id, opening AS prompt
FROM {{ ref('recent_addresses') }}
