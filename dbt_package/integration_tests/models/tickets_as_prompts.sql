SELECT id, body AS prompt FROM {{ ref('tickets') }}
